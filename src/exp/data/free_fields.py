"""Fields of free choice: those whose strings, like names, come from an open set."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice

from exp.data.field_values import FieldPath, string_values
from exp.records import Example

SAMPLE = 2000
"""Rows that are looked at."""
MOST_LISTED = 50
"""A field with more distinct strings than this is one of free choice."""


def learn_free_fields(examples: Iterable[Example]) -> frozenset[FieldPath]:
    """Find the fields whose strings are of free choice, by how many different ones they have."""
    seen: defaultdict[FieldPath, set[str]] = defaultdict(set)
    for example in islice(examples, SAMPLE):
        for path, value in string_values(example.output):
            seen[path].add(value)
    return frozenset(path for path, values in seen.items() if len(values) > MOST_LISTED)
