"""Phrases in place of others that mean the same, from the lexicon."""

from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import fold, split_words

_INNER_GAPS = (" ", "'", "\u2019", ", ")
"""What may stand between the words of a phrase."""

Match = tuple[int, int, int]
"""First word, last word, group of synonyms."""


def synonyms(passage: Passage, rng: Random, strength: float) -> str:
    """Replace some phrases; no word that an answer may turn on is touched."""
    drawn = draw_places(_matches(passage), rng, strength) if passage.words else []
    pieces, done = [], 0
    for first, last, group in drawn:
        start, end = passage.words[first].start, passage.words[last].end
        old = passage.text[start:end]
        others = [p for p in passage.lexicon.synonyms[group] if _key(p) != _key(old)]
        if others:
            pieces += [passage.text[done:start], _cased_like(old, rng.choice(others))]
            done = end
    return "".join(pieces) + passage.text[done:]


def _matches(passage: Passage) -> list[Match]:
    """Find phrases of the lexicon, the longest at each place, without overlap."""
    found: list[Match] = []
    words, i = passage.words, 0
    while i < len(words):
        match = _match_at(passage, i)
        if match is not None:
            found.append(match)
            i = match[1]
        i += 1
    return found


def _match_at(passage: Passage, i: int) -> Match | None:
    words = passage.words
    for phrase, group in passage.lexicon.phrases.get(words[i].folded, ()):
        last = i + len(phrase) - 1
        if (
            last < len(words)
            and all(words[i + k].folded == word for k, word in enumerate(phrase))
            and not any(k in passage.fixed for k in range(i, last + 1))
            and all(passage.gaps[k] in _INNER_GAPS for k in range(i + 1, last + 1))
        ):
            return i, last, group
    return None


def _key(phrase: str) -> tuple[str, ...]:
    return tuple(fold(word.text) for word in split_words(phrase))


def _cased_like(old: str, new: str) -> str:
    """Write a phrase with capitals where the old one had them."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    if old[0].isupper():
        return new[0].upper() + new[1:]
    # English "i" is a capital by itself, also inside a sentence; elsewhere the lexicon decides.
    return new
