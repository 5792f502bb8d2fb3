from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exp.config.schema import DataConfig, OnOverlong
from exp.data.selection import overlong_lines, select_rows
from exp.data.tokens import TokenStore
from exp.errors import DataError

LENGTHS = st.lists(st.integers(4, 30), min_size=1, max_size=40)


def store(lengths, head=(1, 2)):
    """Rows of `lengths` tokens: a head, one token of input, the rest completion."""
    own = np.asarray(lengths) - len(head)
    starts = np.concatenate([[0], np.cumsum(own)])
    return TokenStore(
        head_ids=head,
        ids=np.zeros(starts[-1], dtype=np.int32),
        prompt_starts=starts,
        completion_starts=starts[:-1] + 1,
        example_ids=[f"row-{index}" for index in range(len(lengths))],
    )


@given(LENGTHS, st.integers(4, 30))
def test_what_fits_is_used_and_the_rest_is_listed(lengths, limit):
    assume(min(lengths) <= limit)
    config = DataConfig(max_length_tokens=limit, on_overlong=OnOverlong.skip)
    selection = select_rows(store(lengths), config, 10**6, seed=0)
    assert selection.rows.tolist() == [i for i, n in enumerate(lengths) if n <= limit]
    assert selection.skipped_ids == tuple(f"row-{i}" for i, n in enumerate(lengths) if n > limit)


def test_a_row_that_is_too_long_is_an_error_by_default():
    with pytest.raises(DataError) as caught:
        select_rows(store([5, 40, 6, 50]), DataConfig(max_length_tokens=39), 10**6, seed=0)
    assert caught.value.what.startswith("2 of 4 training rows are longer than 39 tokens")
    assert caught.value.where == "ids row-1, row-3"
    assert caught.value.fix.startswith("data.max_length_tokens=50")


def test_the_length_that_the_model_was_made_for_holds_where_none_is_set():
    with pytest.raises(DataError, match="longer than 8 tokens"):
        select_rows(store([8, 9]), DataConfig(), 8, seed=0)
    assert len(select_rows(store([8, 8]), DataConfig(), 8, seed=0).rows) == 2


def test_only_the_first_ids_of_many_are_shown():
    with pytest.raises(DataError) as caught:
        select_rows(store([9] * 99), DataConfig(max_length_tokens=5), 10**6, seed=0)
    assert caught.value.where.endswith("row-9 ...")


@given(LENGTHS, st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(4, 30))
def test_a_smaller_limit_selects_a_part_of_what_a_larger_one_selects(lengths, a, b, seed, longest):
    assume(min(lengths) <= longest)
    small, large = (
        select_rows(
            store(lengths),
            DataConfig(limit=limit, max_length_tokens=longest, on_overlong=OnOverlong.skip),
            10**6,
            seed,
        ).rows.tolist()
        for limit in sorted((a, b))
    )
    fitting = sum(length <= longest for length in lengths)
    assert set(small) <= set(large)
    assert small == sorted(small)
    assert (len(small), len(large)) == (min(a, b, fitting), min(max(a, b), fitting))


def test_the_part_depends_on_the_seed():
    chosen = [
        tuple(select_rows(store([5] * 50), DataConfig(limit=5), 10**6, seed).rows)
        for seed in range(3)
    ]
    assert len(set(chosen)) == 3
    assert chosen[0] == tuple(select_rows(store([5] * 50), DataConfig(limit=5), 10**6, 0).rows)


SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9)), min_size=1, max_size=30)


def parts(sizes):
    """Rows with head (1, 2), an input of 100, 101, ..., tail (3, 4), a completion of nines."""
    ids, starts, middles = [], [0], []
    for inputs, completions in sizes:
        ids += [*range(100, 100 + inputs), 3, 4]
        middles.append(len(ids))
        ids += [9] * completions
        starts.append(len(ids))
    return TokenStore(
        head_ids=(1, 2),
        ids=np.asarray(ids, dtype=np.int32),
        prompt_starts=np.asarray(starts),
        completion_starts=np.asarray(middles),
        example_ids=[f"row-{index}" for index in range(len(sizes))],
        tail_tokens=2,
    )


@given(SIZES, st.integers(14, 34))
def test_only_the_end_of_an_input_is_cut(sizes, limit):
    whole = parts(sizes)
    config = DataConfig(max_length_tokens=limit, on_overlong=OnOverlong.truncate_prompt)
    selection = select_rows(whole, config, 10**6, seed=0)
    cut = replace(whole, max_tokens=selection.max_tokens)
    assert selection.rows.tolist() == list(range(len(sizes)))
    too_long = [f"row-{i}" for i, (n, m) in enumerate(sizes) if 4 + n + m > limit]
    assert list(selection.cut_ids) == too_long
    assert selection.skipped_ids == ()
    for row, (inputs, completions) in enumerate(sizes):
        kept = min(inputs, limit - 4 - completions)
        assert cut[row].prompt_ids == (1, 2, *range(100, 100 + kept), 3, 4)
        assert cut[row].completion_ids == (9,) * completions
        assert cut.lengths[row] == 4 + kept + completions


def test_a_row_that_is_too_long_without_its_input_is_an_error():
    config = DataConfig(max_length_tokens=10, on_overlong=OnOverlong.truncate_prompt)
    assert select_rows(parts([(7, 5), (2, 2)]), config, 10**6, 0).cut_ids == ("row-0",)
    with pytest.raises(DataError, match="longer than 10 tokens even without their input") as caught:
        select_rows(parts([(7, 5), (1, 6), (2, 2)]), config, 10**6, seed=0)
    assert caught.value.where == "ids row-1"


def test_every_row_that_is_skipped_or_cut_is_named_and_counted():
    skip = DataConfig(max_length_tokens=6, on_overlong=OnOverlong.skip)
    assert list(overlong_lines(select_rows(store([7, 5, 8]), skip, 10**6, 0))) == [
        "skipped: row-0 is longer than the limit",
        "skipped: row-2 is longer than the limit",
        "skipped: 2 training rows, because of data.on_overlong",
    ]
    cut = DataConfig(max_length_tokens=10, on_overlong=OnOverlong.truncate_prompt)
    assert list(overlong_lines(select_rows(parts([(7, 5), (2, 2)]), cut, 10**6, 0))) == [
        "cut: row-0 has its input cut, to 10 tokens in all",
        "cut: 1 training rows, because of data.on_overlong",
    ]
    assert not list(overlong_lines(select_rows(store([5]), DataConfig(), 10**6, 0)))


def test_skipping_every_row_is_an_error():
    config = DataConfig(max_length_tokens=4, on_overlong=OnOverlong.skip)
    with pytest.raises(DataError, match="Each of the 2 training rows is longer than 4 tokens"):
        select_rows(store([5, 6]), config, 10**6, seed=0)


@given(
    LENGTHS,
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.none() | st.integers(1, 40),
    st.integers(0, 3),
)
def test_fractions_and_limits_are_nested_in_each_other(lengths, a, b, limit, seed):
    small, large = sorted((a, b))
    one, other, limited = (
        set(select_rows(store(lengths), config, 10**6, seed).rows.tolist())
        for config in (
            DataConfig(fraction=small),
            DataConfig(fraction=large),
            DataConfig(fraction=large, limit=limit),
        )
    )
    assert one <= other
    assert len(other) == max(1, round(large * len(lengths)))
    assert limited <= other
    assert len(limited) == min(len(other), limit or len(other))
    assert limited <= one or one <= limited
