import time
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from exp.data.output import MAX_DEPTH, canonical, normalise
from exp.metrics.comparison import (
    Comparison,
    Difference,
    _assign_by_trying,
    compare,
    compare_equal,
    compare_nothing,
    leaf_paths,
)

# Few values and keys, so that agreement is common.
GAIN = st.integers(0, 3) | st.integers(0, 2**40)
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "1", "a", "b", " a", ""])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=9,
)


def num_leaves(value: Any) -> int:
    if isinstance(value, dict | list) and value:
        return sum(
            num_leaves(item) for item in (value.values() if isinstance(value, dict) else value)
        )
    return 1


def plain_matches(one: Any, other: Any) -> int:
    """Most leaves that can match, trying every way to pair the items of lists."""
    if isinstance(one, dict) and isinstance(other, dict) and (one or other):
        return sum(plain_matches(one[key], other[key]) for key in one if key in other)
    if isinstance(one, list) and isinstance(other, list) and (one or other):
        short, long = sorted((one, other), key=len)
        return max(
            sum(plain_matches(a, b) for a, b in zip(short, chosen, strict=True))
            for chosen in permutations(long, len(short))
        )
    return int(canonical(one) == canonical(other))


def unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: unordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((unordered(item) for item in value), key=canonical)
    return value


def compared(one: Any, other: Any) -> Comparison:
    return compare(normalise(one), normalise(other))


def counts(comparison: Comparison) -> tuple[int, int, int]:
    return comparison.total.tp, comparison.total.fp, comparison.total.fn


@settings(max_examples=300)
@given(VALUES, VALUES)
@pytest.mark.thorough
def test_matches_are_the_most_that_any_pairing_gives(one: Any, other: Any) -> None:
    matches = plain_matches(one, other)
    assert counts(compared(one, other)) == (
        matches,
        num_leaves(one) - matches,
        num_leaves(other) - matches,
    )


@settings(max_examples=200)
@given(st.lists(VALUES, max_size=5), st.lists(VALUES, max_size=5))
@pytest.mark.thorough
def test_list_items_are_paired_as_well_as_by_brute_force(one: Any, other: Any) -> None:
    assert compared(one, other).total.tp == plain_matches(one, other)


@st.composite
def tables_of_gains(draw: st.DrawFn) -> list[list[int]]:
    width = draw(st.integers(1, 4))
    row = st.lists(GAIN, min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=5))


@given(tables_of_gains())
def test_trying_few_pairings_gains_as_much_as_solving(gains: list[list[int]]) -> None:
    rows, columns, total = _assign_by_trying(gains)
    table = np.array(gains)
    assert total == table[rows, columns].sum()
    assert total == table[linear_sum_assignment(table, maximize=True)].sum()
    assert len(set(rows)) == len(set(columns)) == min(table.shape)


@given(VALUES, VALUES)
def test_swapping_the_sides_swaps_false_positives_and_negatives(one: Any, other: Any) -> None:
    tp, fp, fn = counts(compared(one, other))
    assert counts(compared(other, one)) == (tp, fn, fp)


@given(st.lists(VALUES, max_size=5), st.lists(VALUES, max_size=5), st.randoms())
@pytest.mark.thorough
def test_the_order_of_list_items_changes_nothing(
    one: list[Any], other: list[Any], random: Any
) -> None:
    before = compared(one, other)
    random.shuffle(one)
    random.shuffle(other)
    assert compared(one, other) == before


@given(VALUES, VALUES)
def test_all_leaves_match_only_where_values_are_equal_up_to_list_order(
    one: Any, other: Any
) -> None:
    _, fp, fn = counts(compared(one, other))
    assert (fp == fn == 0) == (canonical(unordered(one)) == canonical(unordered(other)))


@given(VALUES, VALUES)
def test_fields_add_up_to_the_total(one: Any, other: Any) -> None:
    comparison = compared(one, other)
    fields = comparison.fields.values()
    assert counts(comparison) == (
        sum(field.tp for field in fields),
        sum(field.fp for field in fields),
        sum(field.fn for field in fields),
    )


@given(VALUES)
def test_a_value_compared_with_itself_needs_no_pairing(value: Any) -> None:
    assert compare_equal(normalise(value)) == compared(value, value)


@given(VALUES)
def test_compared_with_nothing_all_leaves_are_missed(value: Any) -> None:
    assert counts(compare_nothing(value)) == (0, 0, num_leaves(value))


@given(VALUES, VALUES)
def test_there_is_a_difference_exactly_where_leaves_do_not_match(one: Any, other: Any) -> None:
    comparison = compared(one, other)
    assert bool(comparison.differences) == (comparison.total.fp + comparison.total.fn > 0)


@pytest.mark.parametrize(
    ("predicted", "reference", "expected", "differences"),
    [
        ({"a": 50.0}, {"a": 50}, (1, 0, 0), set()),
        ({"a": "50"}, {"a": 50}, (0, 1, 1), {"wrong_type"}),
        ({"a": True}, {"a": 1}, (0, 1, 1), {"wrong_type"}),
        ({"a": 2.5}, {"a": 2}, (0, 1, 1), {"wrong_value"}),
        ({"a": None}, {"a": "x"}, (0, 1, 1), {"wrong_value"}),
        ({"a": None}, {}, (0, 1, 1), {"extra_field"}),
        ({}, {"a": 1, "b": 2}, (0, 1, 2), {"missing_field"}),
        ({}, {}, (1, 0, 0), set()),
        ([], [], (1, 0, 0), set()),
        ({"a": []}, {"a": {}}, (0, 1, 1), {"wrong_type"}),
        ({"a": {"b": 1, "c": 2}}, {"a": 1}, (0, 2, 1), {"wrong_type"}),
        (
            {"a": 1, "c": 3},
            {"a": 2, "b": 2},
            (0, 2, 2),
            {"wrong_value", "missing_field", "extra_field"},
        ),
        ([{"p": "A", "n": 1}], [{"p": "B", "n": 1}, {"p": "A", "n": 2}], (1, 1, 3), None),
        ([1, 1, 2], [1, 2, 2], (2, 1, 1), {"wrong_value"}),
    ],
)
def test_leaves_are_counted_and_differences_named(
    predicted: Any, reference: Any, expected: tuple[int, int, int], differences: set[str] | None
) -> None:
    comparison = compared(predicted, reference)
    assert counts(comparison) == expected
    if differences is not None:
        assert comparison.differences == {Difference(name) for name in differences}


@pytest.mark.parametrize("decoys", [[{"a": 0}, {"z": 0}], [[0], "x"], [None, True], []])
def test_items_without_a_match_pair_with_those_of_the_same_shape(decoys: list[Any]) -> None:
    expected = {Difference.wrong_value} | ({Difference.extra_field} if decoys else set())
    assert compared([*decoys, {"p": "B", "n": 2}], [{"p": "A", "n": 1}]).differences == expected


@pytest.mark.parametrize("decoys", [["0"], ["x"], [True], ["0", "x", True]])
def test_items_without_a_match_pair_with_those_of_the_same_type(decoys: list[Any]) -> None:
    expected = {Difference.wrong_value, Difference.extra_field}
    assert compared([*decoys, 5], [6.5]).differences == expected


def test_lists_in_lists_as_deep_as_may_be_take_no_time() -> None:
    one: Any = "one"
    other: Any = "other"
    for _ in range(MAX_DEPTH // 2):
        one, other = [{"x": one, "y": 1}, 1], [{"x": other, "y": 1}, 2]
    start = time.process_time()
    assert compared(one, other).total.tp == MAX_DEPTH // 2
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"lineas": [{"producto": "A"}, {"producto": "B"}]}, ["lineas[].producto"] * 2),
        ({"a": {"b c": 1}, "d": []}, ["a.b c", "d"]),
        ({"a.b": {"": 1}, '"': {"\ud800": 1}}, ['$["a.b"][""]', '$["\\""]["\\ud800"]']),
        ([[1], {"a": 2}], ["[][]", "[].a"]),
        ({}, ["$"]),
        (5, ["$"]),
    ],
)
def test_fields_are_paths_without_list_indices(value: Any, paths: list[str]) -> None:
    assert list(leaf_paths(value)) == paths
