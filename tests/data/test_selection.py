import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.config.schema import DataConfig, OnOverlong
from exp.data.selection import select_rows
from exp.data.tokens import TokenStore
from exp.errors import DataError

LENGTHS = st.lists(st.integers(4, 30), min_size=1, max_size=40)


def store(lengths, head=(1, 2)):
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
