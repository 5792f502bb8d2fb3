"""Numbers in a text, in digits and in words, with the values that they may stand for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum, auto
from itertools import pairwise

from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.words import Word

# One to three digits and groups of three behind one kind of mark, then decimals behind another; or
# digits and decimals.
_DIGITS = re.compile(
    r"\d{1,3}(?P<mark>[ .,\u00a0\u202f])\d{3}(?:(?P=mark)\d{3})*(?!\d)"
    r"(?:(?!(?P=mark))[.,](?P<cents>\d+))?"
    r"|\d+(?:[.,]\d+)?"
)
_NARROW = re.compile(r"[ \u00a0\u202f]+|-")
_SIGNS = {"½": Decimal("0.5"), "¼": Decimal("0.25"), "¾": Decimal("0.75")}
# A number that could be part of a code, a date, a time or a phone number is not rewritten.
_BEFORE = re.compile(r"(?:^|[\s(\[\"'“«¿¡:;=@•*$€£¥>]|[\s(]-)$")
_AFTER = re.compile(r"(?:[,;:.!?)\]\"'”»…]*(?:\s|$)|[€$£¥])")


class Kind(Enum):
    """How a numeral is written."""

    digits = auto()
    words = auto()
    part = auto()
    """A word or sign for a part or a bundle: half, ¼, dozen."""


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text.

    Attributes:
        first: Index of its first word.
        last: Index of its last word.
        value: What it is most likely to stand for.
        readings: All that it may stand for by itself: "1.250" is 1250 or 1.25.
        plain: Whether it stands free, so that the same number may be written in its place.
    """

    first: int
    last: int
    value: Decimal
    readings: frozenset[Decimal]
    kind: Kind
    plain: bool


def find_numerals(
    text: str, words: Sequence[Word], number_words: NumberWords
) -> tuple[Numeral, ...]:
    """Find all numerals of a text, from left to right."""
    found: list[Numeral] = []
    i = 0
    while i < len(words):
        numeral = _read(text, words, i, number_words)
        if numeral is None:
            i += 1
        else:
            found.append(numeral)
            i = numeral.last + 1
    return tuple(found)


def _read(text: str, words: Sequence[Word], i: int, number_words: NumberWords) -> Numeral | None:
    word = words[i]
    if any(c.isdigit() for c in word.text):
        return _read_digits(text, words, i, number_words)
    part = _SIGNS.get(word.text, number_words.collectives.get(word.folded))
    if part is None:
        part = number_words.fractions.get(word.folded)
    if part is not None:
        readings = {part, Decimal(1)} if part > 1 else {part}
        return Numeral(i, i, part, frozenset(readings), Kind.part, plain=False)
    spelt = _read_words(text, words, i, number_words)
    if spelt is None:
        return None
    value, last = spelt
    # "a hundred" is one number with its article; "un" and "one" often are articles.
    article = (
        last == i and i > 0 and words[i - 1].folded == "a" and word.folded in number_words.scales
    )
    return Numeral(i, last, value, frozenset({value}), Kind.words, value != 1 and not article)


def _read_digits(text: str, words: Sequence[Word], i: int, number_words: NumberWords) -> Numeral:
    word = words[i]
    match = _DIGITS.match(text, word.start)
    if match is None or not word.text[0].isdigit() or not word.text.isdecimal():
        # Digits glued to letters: a code, or "50kg".
        number = re.search(r"\d+", word.text)
        value = Decimal(number[0]) if number and number[0].isdecimal() else Decimal(0)
        return Numeral(i, i, value, frozenset({value}), Kind.digits, plain=False)
    last = i
    while words[last].end < match.end():
        last += 1
    if words[last].end > match.end():
        # The last digits are glued to letters: "1.5kg", or a code.
        value, readings = read_notation(match[0], number_words.groups)
        return Numeral(i, last, value, readings, Kind.digits, plain=False)
    value, readings = read_notation(match[0], number_words.groups)
    before, after = text[max(0, word.start - 2) : word.start], text[match.end() : match.end() + 8]
    plain = bool(_BEFORE.search(before)) and bool(_AFTER.match(after))
    plain = plain and str(value) != "1" and not re.match(r"0\d", match[0])
    follower = words[last + 1] if last + 1 < len(words) else None
    if follower and _NARROW.fullmatch(text[match.end() : follower.start]):
        scale = number_words.scales.get(follower.folded, 1)
        if scale >= 1000:  # "2 mil"
            value = value * scale
            return Numeral(i, last + 1, value, frozenset({value}), Kind.digits, plain=False)
    return Numeral(i, last, value, readings, Kind.digits, plain)


def read_notation(digits: str, groups: str) -> tuple[Decimal, frozenset[Decimal]]:
    """Say what digits with marks are worth.

    Args:
        digits: As they are written, like "1.250,50".
        groups: Marks that rather group thousands where exactly three digits follow.

    Returns:
        The likeliest value, and all possible ones.
    """
    match = _DIGITS.fullmatch(digits)
    assert match is not None, digits
    mark = match["mark"]
    if mark is None:
        value = Decimal(digits.replace(",", "."))
        return value, frozenset({value})
    cents = match["cents"]
    whole = digits if cents is None else digits[: -len(cents) - 1]
    grouped = Decimal(whole.replace(mark, "") + (f".{cents}" if cents else ""))
    if not mark.isspace() and whole.count(mark) == 1 and cents is None:
        decimal = Decimal(whole.replace(mark, "."))
        if whole[0] == "0":
            return decimal, frozenset({decimal})
        return (grouped if mark in groups else decimal), frozenset({grouped, decimal})
    if mark.isspace():
        # Or the numbers only stand side by side.
        parts = [*whole.split(mark)[:-1], digits[whole.rindex(mark) + 1 :].replace(",", ".")]
        return grouped, frozenset({grouped, *map(Decimal, parts)})
    return grouped, frozenset({grouped})


def _read_words(
    text: str, words: Sequence[Word], i: int, number_words: NumberWords
) -> tuple[Decimal, int] | None:
    """Read the longest number in words that begins at word `i`: its value and its last word.

    Each word has to be smaller than the last digit that is still open, so that "veinte treinta" is
    two numbers.
    """
    total = current = 0
    room, scale_room = 10**9, 10**9
    last, joined = -1, False
    while i < len(words):
        word = words[i].folded
        if last >= 0 and not _NARROW.fullmatch(text[words[i - 1].end : words[i].start]):
            break
        if word in number_words.small:
            value = number_words.small[word]
            tens = room == 10
            if value >= room or (tens and bool(number_words.tens_joiner) and not joined):
                break
            current += value
            room = _room_below(value)
            last, joined = i, False
        elif word in number_words.scales and not joined:
            scale = number_words.scales[word]
            if scale < 1000:
                if not current < 100 or (current == 0 and last >= 0 and room < 1000):
                    break
                current, room = (current or 1) * scale, scale
            elif scale < scale_room and (current or last < 0):
                total, current = total + (current or 1) * scale, 0
                room = scale_room = scale
                room = min(room, 1000)
            else:
                break
            last = i
        elif last >= 0 and not joined and word and _may_join(word, room, number_words):
            joined = True
        else:
            break
        i += 1
    return None if last < 0 else (Decimal(total + current), last)


def _room_below(value: int) -> int:
    """The values that may follow a number word are smaller than this."""
    if value >= 100:
        return 100
    return 10 if value >= 20 and value % 10 == 0 else 0


def _may_join(word: str, room: int, number_words: NumberWords) -> bool:
    return (word == number_words.tens_joiner and room == 10) or (
        word == number_words.hundreds_joiner and room in (100, 1000)
    )


@dataclass(frozen=True, slots=True)
class Stated:
    """A value that a text may state, by one numeral or several together.

    Attributes:
        first: Index of its first word.
        last: Index of its last word.
        how: The kind of a numeral of which it is the likeliest reading; else "reading" of one,
            "sum" or "decimal" of several, or "fragment" of such a decimal.
    """

    value: Decimal
    first: int
    last: int
    how: str


def stated_values(
    text: str, words: Sequence[Word], numerals: Sequence[Numeral], number_words: NumberWords
) -> frozenset[Decimal]:
    """Give every value that the text may state."""
    return frozenset(each.value for each in find_stated(text, words, numerals, number_words))


def find_stated(
    text: str, words: Sequence[Word], numerals: Sequence[Numeral], number_words: NumberWords
) -> frozenset[Stated]:
    """Find every value that the text may state, also by several numerals together.

    "media docena" states 0.5, 6 and 12; "dos kilos y medio" 2.5; "siete euros con noventa" 7.9.
    """
    stated = {
        Stated(value, n.first, n.last, n.kind.name if value == n.value else "reading")
        for n in numerals
        for value in n.readings
    }
    fragments: set[int] = set()
    for a, b in pairwise(numerals):
        if b.first - a.last <= 4:
            sums = _sums(text, words, a, b)
            stated |= {Stated(value, a.first, b.last, "sum") for value in sums}
            decimals = _decimals(words, a, b, number_words)
            stated |= {Stated(value, a.first, b.last, "decimal") for value in decimals}
            fragments |= {a.first, b.first} if decimals else set()
    for a, b, c in zip(numerals, numerals[1:], numerals[2:], strict=False):
        if c.value < 1 and b.kind is Kind.part and c.first - a.last <= 5:
            sums = {a.value + c.value, (a.value + c.value) * b.value}
            stated |= {Stated(value, a.first, c.last, "sum") for value in sums}
    alone = {kind.name for kind in Kind}
    return frozenset(
        replace(each, how="fragment") if each.first in fragments and each.how in alone else each
        for each in stated
    )


def _sums(text: str, words: Sequence[Word], a: Numeral, b: Numeral) -> set[Decimal]:
    """What two numerals state together as a number of parts or bundles, or as a fraction."""
    sums: set[Decimal] = set()
    if b.kind is Kind.part:
        sums |= {reading * b.value for reading in a.readings}
        sums |= {reading + b.value for reading in a.readings if b.value < 1}
        if b.value < 1 < a.value and a.kind is Kind.part:
            sums.add(a.value * (1 + b.value))
    adjoin = b.first == a.last + 1
    if adjoin and text[words[a.last].end : words[b.first].start].strip() == "/" and b.value:
        sums.add(a.value / b.value)
    return sums


def _decimals(
    words: Sequence[Word], a: Numeral, b: Numeral, number_words: NumberWords
) -> set[Decimal]:
    """What two numerals state as a whole part and what stands behind its point."""
    between = [word.folded for word in words[a.last + 1 : b.first]]
    if b.value >= 100 or not any(word in number_words.decimal_words for word in between):
        return set()
    hundredths = {a.value + b.value / 100}
    return hundredths | {a.value + b.value / 10} if b.value < 10 else hundredths
