"""The same numbers in other digits or in words: "1.250,50", "1250.50", "1 250,5", "veinte", "20".

Only numbers that the answer takes are rewritten: of those the value is known, also where the
notation leaves it open ("1.250").
"""

import re
from decimal import Decimal
from random import Random

from num2words import num2words

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.lexicon import Lexicon
from exp.data.augmentation.numerals import Numeral, find_numerals, read_notation
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import split_words

_LARGEST_SPELT = 100_000
_ATTACHED = re.compile(r"[$€£¥%@/*+#]|(?:^|\s)[A-Z]{2,4}\$?\s?$")
"""Signs and codes beside which a number is written in digits."""


def number_format(passage: Passage, rng: Random, strength: float) -> str:
    """Write some of the answer's numbers in another form."""
    known = [n for n in passage.numerals if _known_value(n, passage.target.numbers) is not None]
    text = passage.text
    for numeral in reversed(draw_places(known, rng, strength)):
        start, end = passage.span(numeral)
        forms = [form for form in _forms(passage, numeral) if form != text[start:end]]
        if forms:
            text = text[:start] + rng.choice(forms) + text[end:]
    return text


def _known_value(numeral: Numeral, numbers: frozenset[Decimal]) -> Decimal | None:
    """The value of a number, if the answer takes exactly one of its readings."""
    taken = numeral.readings & numbers
    if not numeral.plain or len(taken) != 1 or numeral.value not in taken:
        return None
    return numeral.value


def _forms(passage: Passage, numeral: Numeral) -> list[str]:
    """Other ways to write a number at its place, each read back as exactly this number there."""
    value, lexicon = numeral.value, passage.lexicon
    follower = numeral.last + 1
    noun = passage.words[follower].folded if follower < len(passage.words) else ""
    gap_before, gap_behind = passage.gaps[numeral.first], passage.gaps[follower]
    start, _ = passage.span(numeral)
    forms = write_digits(value, lexicon)
    beside = passage.text[max(0, start - 6) : start]
    attached = (
        _ATTACHED.search(gap_before) or _ATTACHED.search(beside) or _ATTACHED.match(gap_behind)
    )
    if not attached:
        forms += write_words(value, lexicon, noun if gap_behind == " " else "")
    return [form for form in forms if _reads_back(passage, numeral, form)]


def write_digits(value: Decimal, lexicon: Lexicon) -> list[str]:
    """Write a number in the notations of a language; three decimals could be thousands."""
    plain = format(value.normalize(), "f")
    whole, _, cents = plain.partition(".")
    if len(cents) > 2:
        return []
    forms: dict[str, None] = {}
    padded = cents.ljust(2, "0") if cents else ("00" if len(whole) > 3 else "")
    for decimal, thousands in lexicon.notations:
        grouped = f"{int(whole):,}".replace(",", thousands) if len(whole) > 3 else whole
        # A comma between thousands is clear where the language says so, or where decimals follow.
        clear = thousands in lexicon.numbers.groups[:1] or not thousands.strip()
        for decimals in (cents, padded):
            if decimals:
                forms[f"{grouped}{decimal}{decimals}"] = None
            elif clear or grouped == whole:
                forms[grouped] = None
    return [form for form in forms if read_notation(form, lexicon.numbers.groups)[0] == value]


def write_words(value: Decimal, lexicon: Lexicon, noun: str) -> list[str]:
    """Spell a whole number; not at all where its gender cannot be told from the noun's ending.

    Args:
        value: The number.
        lexicon: The language.
        noun: The word behind the number, folded; "" if there is none.
    """
    if value != value.to_integral_value() or not 1 < value < _LARGEST_SPELT:
        return []
    try:
        spelt = num2words(int(value), lang=lexicon.language).replace(",", "")
    except NotImplementedError:
        return []
    if not lexicon.feminine or not _varies(int(value)):
        return [spelt]
    if noun.endswith(lexicon.feminine):
        return [_agree(spelt, "f")]
    return [_agree(spelt, "m")] if noun.endswith(lexicon.masculine) else []


def _varies(value: int) -> bool:
    """Whether the Spanish word has a gender: 21, 200, 1200, 2021."""
    return any(
        (part % 10 == 1 and part % 100 != 11) or 200 <= part < 1000
        for part in (value % 1000, value // 1000)
    )


def _agree(spelt: str, gender: str) -> str:
    """Let a Spanish number word agree: "veintiún kilos", "doscientas una cajas"."""
    head, mil, tail = spelt.partition("mil")
    if mil:
        head = _shorten(head.strip())  # before "mil": "veintiún mil"
    else:
        head, tail = "", head
    tail = tail.strip()
    if gender == "f":
        head, tail = (
            part.replace("cientos", "cientas").replace("quinientos", "quinientas")
            for part in (head, tail)
        )
        if tail.endswith("uno"):
            tail = tail[:-1] + "a"
    else:
        tail = _shorten(tail)
    return " ".join(part for part in (head, mil, tail) if part)


def _shorten(spelt: str) -> str:
    if spelt.endswith("veintiuno"):
        return spelt[:-3] + "ún"
    return spelt[:-1] if spelt.endswith("uno") else spelt


def _reads_back(passage: Passage, numeral: Numeral, form: str) -> bool:
    """Whether the form, in its place, is read as one number of the same value.

    "producto mil 20" must not become "producto mil veinte".
    """
    start, end = passage.span(numeral)
    # Numbers run over few words, so the neighbourhood is enough.
    low = passage.words[max(0, numeral.first - 4)].start
    high = passage.words[min(len(passage.words) - 1, numeral.last + 4)].end
    text = passage.text[low:start] + form + passage.text[end:high]
    words = split_words(text)
    at = start - low
    return any(
        words[n.first].start == at
        and words[n.last].end == at + len(form)
        and n.value == numeral.value
        and n.plain
        for n in find_numerals(text, words, passage.lexicon.numbers)
    )
