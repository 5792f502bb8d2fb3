"""Fields of free choice: those whose strings, like names, come from an open set."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from exp.records import Example, Json

SAMPLE = 2000
"""Rows that are looked at."""
MOST_LISTED = 50
"""A field with more distinct strings than this is one of free choice."""

FieldPath = tuple[str, ...]
"""The keys that lead to a field, "[]" for the items of a list."""


def learn_free_fields(examples: Iterable[Example]) -> frozenset[FieldPath]:
    """Find the fields whose strings are of free choice, by how many different ones they have."""
    seen: defaultdict[FieldPath, set[str]] = defaultdict(set)
    for example in islice(examples, SAMPLE):
        for path, value in string_values(example.output):
            seen[path].add(value)
    return frozenset(path for path, values in seen.items() if len(values) > MOST_LISTED)


def string_fields(output: Json) -> frozenset[FieldPath]:
    """All fields of an answer that have strings."""
    return frozenset(path for path, _ in string_values(output))


def string_values(output: Json) -> Iterator[tuple[FieldPath, str]]:
    """Yield the strings of an answer, each with its field."""
    yield from ((path, value) for path, value in leaves(output) if isinstance(value, str))


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
