"""The values of an answer, each with the field that it stands in."""

from collections.abc import Iterator
from decimal import Decimal

from exp.records import Json

FieldPath = tuple[str, ...]
"""The keys that lead to a field, "[]" for the items of a list."""


def string_fields(output: Json) -> frozenset[FieldPath]:
    """All fields of an answer that have strings."""
    return frozenset(path for path, _ in string_values(output))


def string_values(output: Json) -> Iterator[tuple[FieldPath, str]]:
    """Yield the strings of an answer, each with its field."""
    yield from ((path, value) for path, value in leaves(output) if isinstance(value, str))


def number_values(output: Json) -> Iterator[tuple[FieldPath, Decimal]]:
    """Yield the numbers of an answer, each with its field."""
    for path, value in leaves(output):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield path, Decimal(str(value))


def leaves(output: Json, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Json]]:
    """Yield all that an answer has but objects and lists, each with its field."""
    if isinstance(output, dict):
        for key, value in output.items():
            yield from leaves(value, (*path, key))
    elif isinstance(output, list):
        for value in output:
            yield from leaves(value, (*path, "[]"))
    else:
        yield path, output
