"""What hurried typing does to a finished message: case, accents, misspellings.

Numbers, number words and days are never misspelt: "setenta" less one letter could be "sesenta". A
misspelt word stays recoverable, as it is long and changes in one place.
"""

import re
import unicodedata
from random import Random

from exp.data.tasks.orders_es import lexicon
from exp.data.tasks.orders_es.numerals import is_number

MIN_LETTERS = 6
MIN_LETTERS_TO_DROP = 8
PHONETIC = (
    ("ll", "y"),
    ("ci", "si"),
    ("ce", "se"),
    ("z", "s"),
    ("v", "b"),
    ("qu", "k"),
    ("b", "v"),
)
_WORD = re.compile(r"[^\W\d_]+")
_COUNTS = {
    "media",
    "medio",
    "cuarto",
    "cuartos",
    "decena",
    "docena",
    "docenas",
    "veintena",
    "centenar",
}


def lower(text: str) -> str:
    """Lower the case of all but codes of a single letter, which would read as words."""
    return re.sub(r"\b(?![A-Z]\b)\w+", lambda match: match[0].lower(), text)


def unaccent(text: str) -> str:
    """Drop accents, the tilde of the n, and opening question and exclamation marks."""
    text = text.replace("¿", "").replace("¡", "").replace("€", "\0")
    plain = unicodedata.normalize("NFD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).replace("\0", "€")


def misspell(rng: Random, text: str, num_words: int) -> str:
    """Misspell up to `num_words` long words, each in one place."""
    places = [m for m in _WORD.finditer(text) if len(m[0]) >= MIN_LETTERS and not _kept(m[0])]
    for match in sorted(rng.sample(places, min(num_words, len(places))), key=lambda m: -m.start()):
        text = text[: match.start()] + _misspell_word(rng, match[0]) + text[match.end() :]
    return text


def _misspell_word(rng: Random, word: str) -> str:
    sounds = [(old, new) for old, new in PHONETIC if old in word[1:]]
    if sounds and rng.random() < 0.5:
        old, new = rng.choice(sounds)
        return word[0] + word[1:].replace(old, new, 1)
    i = rng.randrange(1, len(word) - 2)
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    doubled = word[:i] + word[i] + word[i:]
    dropped = word[:i] + word[i + 1 :]
    return rng.choice(
        (swapped, doubled, dropped) if len(word) >= MIN_LETTERS_TO_DROP else (swapped, doubled)
    )


def _kept(word: str) -> bool:
    return is_number(word.lower()) or word.lower() in _COUNTS or word.lower() in lexicon.DAYS
