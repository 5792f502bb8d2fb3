from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.config.schema import Pacing
from exp.data.curriculum import Curriculum


def curriculum(difficulty, pacing=Pacing.linear, start=0.2, end=0.5):
    return Curriculum(np.asarray(difficulty, dtype=np.float64), pacing, start, end)


@pytest.mark.parametrize(
    ("pacing", "expected"),
    [
        (Pacing.linear, [0.2, 0.4, 0.6, 1.0, 1.0]),
        (Pacing.root, [0.2, 0.52915, 0.72111, 1.0, 1.0]),
        (Pacing.step, [0.2, 0.2, 0.2, 1.0, 1.0]),
    ],
)
def test_the_available_share_rises_from_start_to_all(pacing, expected):
    of = curriculum([], pacing)
    shares = [of.available(progress) for progress in (0, 0.125, 0.25, 0.5, 1)]
    assert shares == pytest.approx(expected, abs=1e-5)


@given(st.sampled_from(Pacing), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_available_share_never_falls(pacing, start, end, progress):
    of = curriculum([], pacing, start, end)
    assert start <= of.available(progress / 2) <= of.available(progress) <= 1
    assert of.available(end) == 1


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(1, 9),
    st.sampled_from(Pacing),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_windows_hold_all_and_only_what_is_available_or_the_easiest_left(
    difficulty, size, pacing, start, end
):
    of = curriculum(difficulty, pacing, start, end)
    members = np.repeat(np.arange(len(difficulty)), 2)
    total = len(members)
    windows = list(of.windows(members, size, lambda n: n / total, np.random.default_rng(0)))
    assert Counter(np.concatenate(windows).tolist()) == Counter(members.tolist())
    ranked = sorted(difficulty[member] for member in members)
    done = 0
    for window in windows:
        entered = max(done + len(window), int(np.ceil(of.available(done / total) * total)))
        assert max(difficulty[member] for member in window) <= ranked[entered - 1]
        done += len(window)
    assert [len(window) for window in windows[:-1]] == [size] * (len(windows) - 1)


def test_every_available_example_may_come_in_the_first_window():
    of = curriculum(range(100), start=0.3)
    first = {
        int(member)
        for seed in range(100)
        for member in next(
            of.windows(np.arange(100), 4, lambda n: n / 100, np.random.default_rng(seed))
        )
    }
    assert first == set(range(30))
