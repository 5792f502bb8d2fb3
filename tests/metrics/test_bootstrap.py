import numpy as np
import pytest

from exp.metrics import bootstrap
from exp.metrics.bootstrap import interval, resample_sums


def test_each_resample_draws_as_many_rows_as_there_are() -> None:
    statistics = np.stack([np.ones(37), np.arange(37.0)], axis=1)
    sums = resample_sums(statistics, seed=0)
    assert sums.shape == (1000, 2)
    assert (sums[:, 0] == 37).all()
    assert len(set(sums[:, 1])) > 100


def test_columns_are_drawn_together() -> None:
    column = np.random.default_rng(0).random(50)
    sums = resample_sums(np.stack([column, 2 * column], axis=1), seed=1)
    np.testing.assert_allclose(sums[:, 1], 2 * sums[:, 0])


def test_the_seed_decides() -> None:
    statistics = np.arange(20.0)[:, None]
    same = resample_sums(statistics, seed=3)
    assert (same == resample_sums(statistics, seed=3)).all()
    assert (same != resample_sums(statistics, seed=4)).any()


def test_drawing_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = np.arange(20.0)[:, None]
    whole = resample_sums(statistics, seed=3)
    monkeypatch.setattr(bootstrap, "_MAX_WEIGHTS", 90)
    assert (resample_sums(statistics, seed=3) == whole).all()


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(resample_sums(values[:, None], seed=0)[:, 0] / 400)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_the_interval_is_the_middle_95_percent() -> None:
    assert interval(np.arange(1001.0)) == (25, 975)
