"""The words and marks by which a language writes numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property


@dataclass(frozen=True)
class NumberWords:
    """What a reader of numbers has to know of a language; as it stands, digits alone.

    Words are folded.

    Attributes:
        small: Number words below 1000 -> value.
        scales: Number words that multiply -> value.
        collectives: Words that count pieces ("dozen") -> value.
        fractions: Words for parts ("half") -> value.
        tens_joiner: Word that stands between tens and units; "" if none has to.
        hundreds_joiner: Word that may stand behind hundreds; "" if none does.
        decimal_words: Words between a whole number and its decimals.
        groups: Marks that group thousands where three digits follow.
    """

    small: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, int] = field(default_factory=dict)
    collectives: Mapping[str, Decimal] = field(default_factory=dict)
    fractions: Mapping[str, Decimal] = field(default_factory=dict)
    tens_joiner: str = ""
    hundreds_joiner: str = ""
    decimal_words: frozenset[str] = frozenset()
    groups: str = ""

    @cached_property
    def all(self) -> frozenset[str]:
        """All words that are a number or a part of one."""
        return frozenset((*self.small, *self.scales, *self.collectives, *self.fractions))
