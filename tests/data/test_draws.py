from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.data.draws import Draws, draw_by_weight, fill_evenly, share_out
from exp.errors import ConfigError

GROUPS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def draws(groups, quotas, seed=0):
    return Draws(np.asarray(groups, dtype=np.int64), np.asarray(quotas, dtype=np.int64), seed)


def by_value(values, max_repeat=4, seed=0):
    values = np.unique(values, return_inverse=True)[1]
    sources = np.zeros(len(values), dtype=np.int16)
    return draw_by_weight(sources, None, values, max_repeat, seed)


def counts(of, epoch):
    return np.bincount(of.epoch(epoch), minlength=len(of.groups))


@given(GROUPS, st.integers(0, 5), st.integers(0, 9), st.integers(0, 3))
def test_the_examples_of_a_group_come_equally_often_up_to_one(values, quota, epoch, seed):
    _, groups = np.unique(values, return_inverse=True)
    of = draws(groups, np.arange(groups.max() + 1) + quota, seed)
    often = counts(of, epoch)
    for group, expected in enumerate(of.quotas):
        own = often[groups == group]
        assert own.sum() == expected
        assert own.max() - own.min() <= 1


@given(GROUPS, st.integers(1, 30), st.integers(1, 6))
def test_over_the_epochs_all_have_their_turn_before_any_comes_again(values, quota, num_epochs):
    _, groups = np.unique(values, return_inverse=True)
    of = draws(groups, np.full(groups.max() + 1, quota))
    often = sum(counts(of, epoch) for epoch in range(num_epochs))
    for group in range(groups.max() + 1):
        own = often[groups == group]
        assert own.max() - own.min() <= 1


def test_an_epoch_is_a_pure_function_of_seed_and_number():
    one, other = (draws([0] * 40, [7], seed=3) for _ in range(2))
    assert [one.epoch(n).tolist() for n in (2, 0)] == [other.epoch(n).tolist() for n in (2, 0)]
    assert draws([0] * 40, [7], seed=4).epoch(0).tolist() != one.epoch(0).tolist()


@given(GROUPS, st.integers(1, 5))
def test_balanced_values_come_equally_often_as_far_as_the_cap_admits(values, max_repeat):
    of = by_value(values, max_repeat)
    often = counts(of, 0)
    assert often.sum() == len(values)
    assert often.max() <= max_repeat
    quotas = dict(zip(np.unique(values).tolist(), of.quotas.tolist(), strict=True))
    largest = max(quotas.values())
    for value, rows in Counter(values).items():
        # Less than another value, by more than rounding, only where every row is at the cap.
        assert quotas[value] >= largest - 1 or quotas[value] == max_repeat * rows


def test_a_balance_of_one_and_nine_is_five_and_five_where_the_cap_admits_it():
    assert by_value([0] + [1] * 9, max_repeat=5).quotas.tolist() == [5, 5]
    assert by_value([0] + [1] * 9, max_repeat=3).quotas.tolist() == [3, 7]


def test_weights_decide_how_much_of_an_epoch_each_file_has():
    sources = np.repeat(np.array([0, 1], dtype=np.int16), [90, 10])
    of = draw_by_weight(sources, (0.5, 1.5), None, 4, 0)
    often = counts(of, 0)
    assert (often[:90].sum(), often[90:].sum()) == (25, 75)
    assert set(often[90:]) == {7, 8}


def test_weights_and_balance_go_together():
    sources = np.repeat(np.array([0, 1], dtype=np.int16), [60, 40])
    values = np.array(([0] * 10 + [1] * 50) + ([1] * 8 + [2] * 32))
    of = draw_by_weight(sources, (1.0, 1.0), values, 9, 0)
    often = counts(of, 0)
    table = {
        (source, value): int(often[(sources == source) & (values == value)].sum())
        for source, value in zip(sources.tolist(), values.tolist(), strict=True)
    }
    assert table == {(0, 0): 25, (0, 1): 25, (1, 1): 25, (1, 2): 25}


def test_a_weight_for_a_file_without_rows_is_refused():
    with pytest.raises(ConfigError, match=r"File 2 of task\.train has a weight"):
        draw_by_weight(np.zeros(5, dtype=np.int16), (0.5, 0.5), None, 4, 0)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.floats(0, 1))
def test_filling_evenly_is_the_fullest_equal_level(most, share):
    most = np.asarray(most, dtype=float)
    total = share * most.sum()
    filled = fill_evenly(total, most)
    assert np.isclose(filled.sum(), total)
    assert (filled <= most).all()
    below = filled < most - 1e-9
    assert np.allclose(filled[below], filled.max())


@given(st.integers(0, 500), st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_sharing_out_loses_nothing_and_rounds_by_less_than_one(total, weights):
    weights = np.asarray([*weights, 1])
    shares = share_out(total, weights)
    assert shares.sum() == total
    assert (abs(shares - total * weights / weights.sum()) < 1).all()


def test_a_million_examples_are_drawn_quickly():
    of = by_value(np.arange(1_000_000) % 1000)
    assert len(of.epoch(3)) == 1_000_000
