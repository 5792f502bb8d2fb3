"""What stands around a number of an input, by which it can be told what the number is for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.numerals import Stated, find_numerals, find_stated
from exp.data.augmentation.words import Word, gaps, split_words

HERE = "#"
"""Stands for the number itself, and as many digits as another number has for that one."""
_START, _END = "START", "END"  # words of texts are in lower case here
_SIGN = re.compile(r"\n|\S")
_GLUED = re.compile(r"(\d+)([^\W\d_]+)")
MOST_DIGITS = 7
"""Of a whole part that are told apart: longer ones are telephone numbers and the like."""


@dataclass(frozen=True, slots=True)
class StatedNumber:
    """A number that an input may state.

    Attributes:
        surroundings: What stands around it, in several widths, and its form: "# kilos", "a #",
            "digits2.0 kilos". One that is stated twice is two.
    """

    value: Decimal
    surroundings: frozenset[str]


def stated_numbers(text: str, number_words: NumberWords) -> frozenset[StatedNumber]:
    """Find every number that a text may state."""
    words = split_words(text)
    stated = find_stated(text, words, find_numerals(text, words, number_words), number_words)
    tokens, place_of = _tokens(text, words)
    return frozenset(
        StatedNumber(each.value, frozenset(_surroundings(each, tokens, place_of)))
        for each in stated
    )


def _tokens(text: str, words: tuple[Word, ...]) -> tuple[list[str], list[int]]:
    """Cut a text into words and signs; say which of them each word is, its digits if it is cut."""
    tokens, place_of = [_START, _START], []
    between = gaps(text, words)
    for gap, word in zip(between, words, strict=False):
        tokens += _SIGN.findall(gap)
        place_of.append(len(tokens))
        glued = _GLUED.fullmatch(word.folded)
        tokens += [HERE, glued[2]] if glued else [HERE if word.text.isdecimal() else word.folded]
    return [*tokens, *_SIGN.findall(between[-1]), _END, _END], place_of


def _surroundings(stated: Stated, tokens: Sequence[str], place_of: Sequence[int]) -> Iterator[str]:
    first, last = place_of[stated.first], place_of[stated.last]
    farther, before = tokens[first - 2 : first]
    behind, beyond = tokens[last + 1 : last + 3]
    form = _form(stated)
    yield f"{before} {HERE}"
    yield f"{HERE} {behind}"
    yield f"{before} {HERE} {behind}"
    yield f"{farther} {before} {HERE}"
    yield f"{HERE} {behind} {beyond}"
    yield f"{farther} {before} {HERE} {behind}"
    yield f"{before} {HERE} {behind} {beyond}"
    yield form
    yield f"{before} {form}"
    yield f"{form} {behind}"


def _form(stated: Stated) -> str:
    """How a number is written, and its digits before and behind the point."""
    exponent = stated.value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), stated
    whole = min(len(str(int(stated.value))), MOST_DIGITS)
    return f"{stated.how}{whole}.{max(0, -exponent)}"
