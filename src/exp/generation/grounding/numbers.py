"""Numbers of an answer that can only be numbers of the input, in digits or in words.

A small model that reads "novecientos cuarenta y seis con veinticinco" likes to write 96.25. What a
text states is known to the reader of numbers that augmentation has, so the model only has to choose
which of it is meant.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.numerals import find_numerals, stated_values
from exp.data.augmentation.words import split_words
from exp.data.field_values import FieldPath, number_values
from exp.data.free_fields import MOST_LISTED
from exp.records import Example

MOST_UNGROUNDED = 0.1
"""Share of a field's values that inputs do not have, above which the field is left free."""
ENOUGH_VALUES = 50
"""Numbers of a field in training before it can be told where they come from."""
USUAL_DECIMALS = 3
"""Digits behind the point that a number may have even if none of training has as many."""
LARGEST = 10**15
"""A JSON number of more digits is not the same everywhere."""

Number = int | float


@dataclass(frozen=True)
class NumberRules:
    """How the numbers of one field come out of an input.

    Attributes:
        decimals: Digits behind the point, at the most.
        always: Values of training rows that their inputs do not state, ascending.
    """

    decimals: int
    always: tuple[Number, ...] = ()

    def values(self, stated: Iterable[Decimal]) -> list[Number]:
        """All numbers that the field may have, ascending, for what an input states."""
        fitting = (value for value in stated if value < LARGEST)
        found = {_plain(value) for value in fitting if _decimals(value) <= self.decimals}
        return sorted(found | set(self.always))


def stated_numbers(text: str, number_words: NumberWords) -> frozenset[Decimal]:
    """Every number that a text may state."""
    words = split_words(text)
    return stated_values(text, words, find_numerals(text, words, number_words), number_words)


def learn_numbers(
    rows: Sequence[Example], number_words: NumberWords
) -> tuple[dict[FieldPath, NumberRules], dict[FieldPath, float]]:
    """Learn which fields have numbers that their inputs state.

    Returns:
        Field -> its rules, and of the others that take many values: field -> the share of its
        numbers that inputs do not state.
    """
    seen: defaultdict[FieldPath, list[Decimal]] = defaultdict(list)
    missed: defaultdict[FieldPath, list[Decimal]] = defaultdict(list)
    for example in rows:
        values = list(number_values(example.output))
        stated = stated_numbers(example.input, number_words) if values else frozenset()
        for path, value in values:
            seen[path].append(value)
            if value not in stated or value >= LARGEST:
                missed[path].append(value)
    fields: dict[FieldPath, NumberRules] = {}
    left_free: dict[FieldPath, float] = {}
    for path in sorted(path for path, values in seen.items() if len(values) >= ENOUGH_VALUES):
        share = len(missed[path]) / len(seen[path])
        if share <= MOST_UNGROUNDED:
            always = sorted({_plain(value) for value in missed[path]})
            decimals = max(USUAL_DECIMALS, *map(_decimals, seen[path]))
            fields[path] = NumberRules(decimals, tuple(always))
        elif len(set(seen[path])) > MOST_LISTED:
            left_free[path] = share
    return fields, left_free


def _decimals(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), value
    return max(0, -exponent)


def _plain(value: Decimal) -> Number:
    return int(value) if value == value.to_integral_value() else float(value)
