"""Numbers of an answer that can only be numbers of the input, in digits or in words.

A small model that reads "novecientos cuarenta y seis con veinticinco" likes to write 96.25. What a
text states is known to the reader of numbers that augmentation has, so the model only has to choose
which of it is meant. Much of that is told by what stands around a number: "30 kilos" is no price.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from exp.data.augmentation.number_words import NumberWords
from exp.data.field_values import FieldPath, number_values
from exp.data.free_fields import MOST_LISTED
from exp.generation.grounding.halves import halves
from exp.generation.grounding.surroundings import StatedNumber, stated_numbers
from exp.records import Example

MOST_UNGROUNDED = 0.1
"""Share of a field's values that inputs do not have, above which the field is left free."""
ENOUGH_VALUES = 50
"""Numbers of a field in training before it can be told where they come from."""
USUAL_DECIMALS = 3
"""Digits behind the point that a number may have even if none of training has as many."""
LARGEST = 10**15
"""A JSON number of more digits is not the same everywhere."""

FEWEST_SEEN = 20
"""Numbers of training rows that have something around them before it tells anything of others."""
MOST_MEANT = 0.01
"""Share of those that are a field's, at the most, where it tells that none is: another number of
the answer may be the same by chance."""
MOST_BARRED = 0.02
"""Share of a field's numbers that half of the rows may wrongly tell of the other half; above it
nothing around a number tells anything of this field."""

Number = int | float
Rows = Sequence[tuple[frozenset[StatedNumber], frozenset[Decimal]]]
"""What each input states, and what its answer has in one field."""


@dataclass(frozen=True)
class NumberRules:
    """How the numbers of one field come out of an input.

    Attributes:
        decimals: Digits behind the point, at the most.
        always: Values of training rows that their inputs do not state, ascending.
        barring: Surroundings of which one tells that a number is not this field's.
    """

    decimals: int
    always: tuple[Number, ...] = ()
    barring: frozenset[str] = frozenset()

    def values(self, stated: Iterable[StatedNumber]) -> list[Number]:
        """All numbers that the field may have, ascending, for what an input states."""
        open_to_it = [each.value for each in stated if not self.barring & each.surroundings]
        return sorted({*self._fitting(open_to_it), *self.always})

    def all_values(self, stated: Iterable[StatedNumber]) -> list[Number]:
        """The same, whatever stands around a number."""
        return sorted({*self._fitting([each.value for each in stated]), *self.always})

    def _fitting(self, values: Iterable[Decimal]) -> set[Number]:
        fitting = (value for value in values if value < LARGEST)
        return {_plain(value) for value in fitting if _decimals(value) <= self.decimals}


def learn_numbers(
    rows: Sequence[Example], number_words: NumberWords
) -> tuple[dict[FieldPath, NumberRules], dict[FieldPath, float]]:
    """Learn which fields have numbers that their inputs state.

    Returns:
        Field -> its rules, and of the others that take many values: field -> the share of its
        numbers that inputs do not state.
    """
    stated = [stated_numbers(example.input, number_words) for example in rows]
    made: defaultdict[FieldPath, list[list[Decimal]]] = defaultdict(lambda: [[] for _ in rows])
    for number, example in enumerate(rows):
        for path, value in number_values(example.output):
            made[path][number].append(value)
    fields: dict[FieldPath, NumberRules] = {}
    left_free: dict[FieldPath, float] = {}
    for path, answers in sorted(made.items()):
        seen = [value for values in answers for value in values]
        if len(seen) < ENOUGH_VALUES:
            continue
        missed = [
            value
            for found, values in zip(stated, answers, strict=True)
            for value in values
            if value >= LARGEST or all(value != each.value for each in found)
        ]
        share = len(missed) / len(seen)
        if share <= MOST_UNGROUNDED:
            always = sorted({_plain(value) for value in missed})
            decimals = max(USUAL_DECIMALS, *map(_decimals, seen))
            barring = _learn_barring(list(zip(stated, map(frozenset, answers), strict=True)))
            fields[path] = NumberRules(decimals, tuple(always), barring)
        elif len(set(seen)) > MOST_LISTED:
            left_free[path] = share
    return fields, left_free


def _learn_barring(rows: Rows) -> frozenset[str]:
    """Learn what tells that a number is not a field's, if half of the rows tell it rightly."""
    first, second = halves(rows)
    barring = _barring(first)
    wanted = barred = 0
    for stated, answer in second:
        for value in answer:
            places = [each for each in stated if each.value == value]
            wanted += bool(places)
            barred += bool(places) and all(barring & each.surroundings for each in places)
    return _barring(rows) if barred <= MOST_BARRED * wanted else frozenset()


def _barring(rows: Rows) -> frozenset[str]:
    """What stood around numbers often enough, and hardly ever around one of the answer's."""
    seen: Counter[str] = Counter()
    meant: Counter[str] = Counter()
    for stated, answer in rows:
        for number in stated:
            seen.update(number.surroundings)
            if number.value in answer:
                meant.update(number.surroundings)
    return frozenset(
        each for each, n in seen.items() if n >= FEWEST_SEEN and meant[each] <= MOST_MEANT * n
    )


def _decimals(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), value
    return max(0, -exponent)


def _plain(value: Decimal) -> Number:
    return int(value) if value == value.to_integral_value() else float(value)
