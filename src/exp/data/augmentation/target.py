"""What an answer says, as values that can be looked for in the input."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from exp.config.schema import OutputFormat
from exp.data.augmentation.words import split_words
from exp.data.field_values import number_values, string_values
from exp.records import Json


@dataclass(frozen=True)
class Target:
    """The values of one answer.

    Attributes:
        strings: Distinct string values; the words of a text output.
        numbers: Distinct numeric values, without their sign.
        ordered: Whether the order in the input may matter: the answer has a list of several items,
            or is a text.
    """

    strings: tuple[str, ...]
    numbers: frozenset[Decimal]
    ordered: bool

    @cached_property
    def folded_strings(self) -> tuple[tuple[str, ...], ...]:
        """The words of each string value, without case and accents."""
        return tuple(tuple(w.folded for w in split_words(text)) for text in self.strings)


def read_target(output: Json, output_format: OutputFormat) -> Target:
    """Collect the values of an answer."""
    if output_format is OutputFormat.text:
        words = split_words(output) if isinstance(output, str) else ()
        return Target(tuple(dict.fromkeys(word.text for word in words)), frozenset(), ordered=True)
    strings = (value for _, value in string_values(output))
    return Target(
        strings=tuple(dict.fromkeys(text for text in strings if split_words(text))),
        numbers=frozenset(abs(number) for _, number in number_values(output)),
        ordered=_has_order(output),
    )


def _has_order(value: Json) -> bool:
    if isinstance(value, list):
        return len(value) > 1 or any(map(_has_order, value))
    return isinstance(value, dict) and any(map(_has_order, value.values()))
