"""Compare two values leaf by leaf.

A leaf is a scalar, or a container without content: null, {} and [] are statements like any other,
so they cost where they are wrong. Leaves match where path, type and value are the same. Keys pair
by name; the items of two lists pair so that the most leaves match, whatever their order.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np

from exp.data.output import encode_normalised
from exp.records import Json

ROOT = "$"

# One matched leaf outweighs any number of merely comparable ones, which only break ties; sums stay
# exact in a double while both counts stay below 2**26.
_MATCHED = 1 << 26
_SAME_TYPE = 2
_SAME_PATH = 1

FEW_PAIRINGS = 120
"""So many are tried one by one: lists are mostly short, and scipy takes longer to import than all
else that scoring a thousand cached predictions takes."""

_PLAIN_KEY = re.compile(r'[^.\[\]"$\ud800-\udfff]+')


class Difference(StrEnum):
    """What can be wrong with a leaf."""

    missing_field = "missing_field"
    extra_field = "extra_field"
    wrong_type = "wrong_type"
    wrong_value = "wrong_value"


@dataclass(slots=True)
class LeafCounts:
    """Leaves that match (tp), are predicted only (fp), and are in the reference only (fn)."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def add(self, other: "LeafCounts") -> None:
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn


@dataclass(slots=True)
class Comparison:
    """The leaves of a prediction against those of its reference, in all and by field.

    A field is a path with its list indices left out, like `lineas[].producto`.
    """

    total: LeafCounts = field(default_factory=LeafCounts)
    fields: dict[str, LeafCounts] = field(default_factory=dict)
    differences: set[Difference] = field(default_factory=set)

    def count(self, path: str, tp: int = 0, fp: int = 0, fn: int = 0) -> None:
        field_counts = self.fields.get(path)
        if field_counts is None:
            field_counts = self.fields[path] = LeafCounts()
        for counts in (self.total, field_counts):
            counts.tp += tp
            counts.fp += fp
            counts.fn += fn


def compare(predicted: Json, reference: Json) -> Comparison:
    """Compare two normalised values."""
    comparison = Comparison()
    _compare(comparison, ROOT, predicted, reference)
    return comparison


def compare_equal(reference: Json) -> Comparison:
    """Compare a value with itself: all leaves match."""
    comparison = Comparison()
    for path in leaf_paths(reference):
        comparison.count(path, tp=1)
    return comparison


def compare_nothing(reference: Json) -> Comparison:
    """Compare a prediction that gives no value: all leaves of the reference are missed."""
    comparison = Comparison()
    for path in leaf_paths(reference):
        comparison.count(path, fn=1)
    return comparison


def leaf_paths(value: Json, path: str = ROOT) -> Iterator[str]:
    """Yield the field of each leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaf_paths(item, _member(path, key))
    elif isinstance(value, list) and value:
        inner = _items(path)
        for item in value:
            yield from leaf_paths(item, inner)
    else:
        yield path


def _compare(into: Comparison, path: str, predicted: Json, reference: Json) -> None:
    if isinstance(predicted, dict) and isinstance(reference, dict) and (predicted or reference):
        for key, item in reference.items():
            if key in predicted:
                _compare(into, _member(path, key), predicted[key], item)
            else:
                _miss(into, _member(path, key), item)
        for key, item in predicted.items():
            if key not in reference:
                _exceed(into, _member(path, key), item)
        _count_empty(into, path, predicted, reference)
    elif isinstance(predicted, list) and isinstance(reference, list) and (predicted or reference):
        inner = _items(path)
        pairs, extra, missing = pair_items(predicted, reference)
        for one, other in pairs:
            _compare(into, inner, one, other)
        for item in extra:
            _exceed(into, inner, item)
        for item in missing:
            _miss(into, inner, item)
        _count_empty(into, path, predicted, reference)
    elif _equal(predicted, reference):
        into.count(path, tp=1)
    else:
        for leaf in leaf_paths(predicted, path):
            into.count(leaf, fp=1)
        for leaf in leaf_paths(reference, path):
            into.count(leaf, fn=1)
        into.differences.add(_difference(predicted, reference))


def _miss(into: Comparison, path: str, reference: Json) -> None:
    for leaf in leaf_paths(reference, path):
        into.count(leaf, fn=1)
    into.differences.add(Difference.missing_field)


def _exceed(into: Comparison, path: str, predicted: Json) -> None:
    for leaf in leaf_paths(predicted, path):
        into.count(leaf, fp=1)
    into.differences.add(Difference.extra_field)


def _count_empty(into: Comparison, path: str, predicted: Any, reference: Any) -> None:
    """Count the leaf that an empty container is, where the other one is not empty."""
    if not predicted:
        into.count(path, fp=1)
    elif not reference:
        into.count(path, fn=1)


def _difference(predicted: Json, reference: Json) -> Difference:
    # A null is the absence of a value of the field's type, not a value of another type.
    if predicted is None or reference is None or _type(predicted) is _type(reference):
        return Difference.wrong_value
    return Difference.wrong_type


def pair_items(
    predicted: Sequence[Json], reference: Sequence[Json]
) -> tuple[list[tuple[Json, Json]], list[Json], list[Json]]:
    """Pair the items of two lists so that the most leaves match.

    Returns:
        The pairs, and the items left over on either side.
    """
    pairs, extra, missing = _pair_equal(predicted, reference)
    if not extra or not missing:
        return pairs, extra, missing
    if len(extra) == len(missing) == 1:
        return [*pairs, (extra[0], missing[0])], [], []
    rows, columns, _ = _assign(extra, missing)
    pairs += [(extra[i], missing[j]) for i, j in zip(rows, columns, strict=True)]
    paired_rows, paired_columns = set(rows), set(columns)
    extra = [item for i, item in enumerate(extra) if i not in paired_rows]
    missing = [item for j, item in enumerate(missing) if j not in paired_columns]
    return pairs, extra, missing


def _pair_equal(
    predicted: Sequence[Json], reference: Sequence[Json]
) -> tuple[list[tuple[Json, Json]], list[Json], list[Json]]:
    """Pair the items that are equal, and leave the others, sorted.

    Pairing these first loses nothing: were X paired with B, and another A with the equal X, then
    the leaves in which X agrees with both, A and B agree in too. Sorted, because the order of the
    items must not decide between assignments that are equally good.
    """
    ours, theirs = _keyed(predicted), _keyed(reference)
    equal = Counter(key for key, _ in ours) & Counter(key for key, _ in theirs)
    pairs = list(zip(_take(ours, equal), _take(theirs, equal), strict=True))
    return pairs, _leave(ours, equal), _leave(theirs, equal)


def _assign(
    predicted: Sequence[Json], reference: Sequence[Json]
) -> tuple[list[int], list[int], int]:
    """Solve the assignment problem; returns the paired indices and their summed similarity."""
    gains = [[similarity(one, other) for other in reference] for one in predicted]
    if math.perm(max(len(gains), len(gains[0])), min(len(gains), len(gains[0]))) <= FEW_PAIRINGS:
        return _assign_by_trying(gains)
    from scipy.optimize import linear_sum_assignment

    weights = np.array(gains, float)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return rows.tolist(), columns.tolist(), int(weights[rows, columns].sum())


def _assign_by_trying(gains: Sequence[Sequence[int]]) -> tuple[list[int], list[int], int]:
    """Take the first of the best pairings of a few items."""
    num_rows, num_columns = len(gains), len(gains[0])
    if num_rows > num_columns:
        columns, rows, total = _assign_by_trying(list(zip(*gains, strict=True)))
        return rows, columns, total

    def total_gain(columns: tuple[int, ...]) -> int:
        return sum(row[column] for row, column in zip(gains, columns, strict=True))

    best = max(itertools.permutations(range(num_columns), num_rows), key=total_gain)
    return list(range(num_rows)), list(best), total_gain(best)


def _keyed(items: Sequence[Json]) -> list[tuple[str, Json]]:
    return sorted(((encode_normalised(item), item) for item in items), key=lambda keyed: keyed[0])


def _take(keyed: Sequence[tuple[str, Json]], wanted: Counter[str]) -> list[Json]:
    left = Counter(wanted)
    return [item for key, item in keyed if _draw(left, key)]


def _leave(keyed: Sequence[tuple[str, Json]], wanted: Counter[str]) -> list[Json]:
    left = Counter(wanted)
    return [item for key, item in keyed if not _draw(left, key)]


def _draw(left: Counter[str], key: str) -> bool:
    left[key] -= 1
    return left[key] >= 0


def similarity(predicted: Json, reference: Json) -> int:
    """Weigh a pair: `_MATCHED` for each leaf that matches, a little for each that is comparable."""
    if isinstance(predicted, dict) and isinstance(reference, dict) and (predicted or reference):
        return sum(
            similarity(item, reference[key]) for key, item in predicted.items() if key in reference
        )
    if isinstance(predicted, list) and isinstance(reference, list) and (predicted or reference):
        # Each pair of inner items is weighed once: weighing again would double with every level.
        pairs, extra, missing = _pair_equal(predicted, reference)
        equal = sum(1 for one, _ in pairs for _ in leaf_paths(one))
        return _MATCHED * equal + (_assign(extra, missing)[2] if extra and missing else 0)
    if _equal(predicted, reference):
        return _MATCHED
    return _SAME_TYPE if _type(predicted) is _type(reference) else _SAME_PATH


def _equal(one: Json, other: Json) -> bool:
    # The types too, because True == 1 in Python; normalised numbers of two types always differ.
    return type(one) is type(other) and one == other


def _type(value: Json) -> type:
    return float if type(value) is int else type(value)


@lru_cache(maxsize=1 << 16)
def _member(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        # As JSON in brackets: a dot, a quote or a lone surrogate in a key stays unmistakable.
        return f"{path}[{json.dumps(key)}]"
    return key if path == ROOT else f"{path}.{key}"


def _items(path: str) -> str:
    return "[]" if path == ROOT else f"{path}[]"
