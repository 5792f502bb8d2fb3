"""Rows in two halves."""

from exp.generation.grounding.halves import halves


def test_each_row_is_in_one_half():
    first, second = halves(range(101))
    assert (len(first), len(second)) == (50, 51)
    assert sorted(first + second) == list(range(101))


def test_rows_of_a_kind_side_by_side_come_into_both():
    rows = ["a"] * 50 + ["b"] * 50
    first, _ = halves(rows)
    assert 15 < first.count("a") < 35
    assert rows == ["a"] * 50 + ["b"] * 50


def test_halves_are_the_same_each_time():
    assert halves(range(100)) == halves(range(100))
