"""The page's numbers are those of the finished trials, paired by seed."""

import json
import math
from dataclasses import replace

import pytest
import results as read
import table
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from trials import ARMS, BASELINE, DATA_SETS, Trial, all_trials

from exp.config.plain import write_config
from exp.config.schema import TrainConfig
from exp.errors import DataError

DATA, ARM = DATA_SETS[0], ARMS[1]
BUDGET = read.Budget("tiny", 60, 8, 2e-3, 150)


def result(field_f1, budget=BUDGET):
    return read.Result(budget, "abc123", field_f1, exact_match=0.25)


def paired(baseline, arm):
    """Field F1 by seed of the two arms that are compared."""
    rows = {Trial(DATA, BASELINE, seed): result(value) for seed, value in baseline.items()}
    return rows | {Trial(DATA, ARM, seed): result(value) for seed, value in arm.items()}


def finish(folder, trial, field_f1, *, status="completed", steps=60, name="attempt"):
    run = folder / trial.folder / name
    run.mkdir(parents=True)
    config = TrainConfig()
    config = replace(
        config,
        model=replace(config.model, name="tiny"),
        hardware=replace(config.hardware, name="cpu"),
        task=replace(config.task, name="orders_es"),
    )
    write_config(run / "config.yaml", config)
    record = {"status": status, "git": "abc123", "training": {"steps": steps}}
    (run / "run.json").write_text(json.dumps(record))
    after = {
        "field_f1": {"value": field_f1, "count": 150},
        "exact_match": {"value": 0.25, "count": 150},
    }
    (run / "scores.json").write_text(json.dumps({"test": {"before": None, "after": after}}))


def test_an_interval_of_three_seeds_is_that_of_the_tables_of_t():
    found = read.estimate([0.1, 0.2, 0.3])
    # 4.302653 is t at 0.975 with two degrees of freedom; 0.1 is the standard deviation.
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6, unique=True))
def test_an_interval_is_scipys_own(thousandths):
    values = [value / 1000 for value in thousandths]
    found, expected = read.estimate(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval():
    found = read.estimate([0.4])
    assert (found.mean, found.low, found.high) == (0.4, None, None)
    assert not found.excludes_zero


def test_a_difference_is_taken_seed_by_seed():
    # The seeds are far apart, and the gain is nearly the same in each.
    gain, share = read.difference(
        paired({0: 0.1, 1: 0.4, 2: 0.7}, {0: 0.149, 1: 0.45, 2: 0.751}), DATA, ARM
    )
    assert gain.mean == pytest.approx(0.05)
    assert gain.high - gain.low < 0.01
    assert gain.excludes_zero
    assert share == pytest.approx(0.05 / 0.4)


def test_a_seed_that_one_arm_lacks_is_left_out_of_the_difference():
    gain, share = read.difference(paired({0: 0.2, 1: 0.9}, {0: 0.3, 2: 0.1}), DATA, ARM)
    assert (gain.mean, gain.count) == (pytest.approx(0.1), 1)
    assert share == pytest.approx(0.5)


def test_without_a_common_seed_there_is_no_difference():
    assert read.difference(paired({0: 0.2}, {1: 0.3}), DATA, ARM) is None


def test_a_share_of_nothing_is_not_a_number():
    gain, share = read.difference(paired({0: 0.0}, {0: 0.3}), DATA, ARM)
    assert gain.mean == pytest.approx(0.3)
    assert math.isnan(share)


def test_a_loss_excludes_zero_too():
    gain, _ = read.difference(
        paired({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.4, 1: 0.41, 2: 0.39}), DATA, ARM
    )
    assert gain.high < 0
    assert gain.excludes_zero


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_what_was_not_finished_is_not_counted(tmp_path, status):
    done, cut = Trial(DATA, BASELINE, 0), Trial(DATA, ARM, 0)
    finish(tmp_path, done, 0.3)
    finish(tmp_path, cut, 0.9, status=status)
    assert set(read.read_results(all_trials(), tmp_path)) == {done}


def test_a_second_attempt_counts_where_the_first_was_cut_off(tmp_path):
    trial = Trial(DATA, BASELINE, 0)
    finish(tmp_path, trial, 0.1, status="interrupted", name="a")
    finish(tmp_path, trial, 0.6, name="b")
    assert read.read_results([trial], tmp_path)[trial].field_f1 == 0.6


def test_trials_of_different_budgets_are_refused(tmp_path):
    finish(tmp_path, Trial(DATA, BASELINE, 0), 0.3)
    finish(tmp_path, Trial(DATA, ARM, 0), 0.3, steps=61)
    with pytest.raises(DataError, match="budgets differ") as caught:
        read.read_results(all_trials(), tmp_path)
    assert "augmentation/seed0" in str(caught.value)


def test_no_finished_trial_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"No trial is done yet") as caught:
        read.read_results(all_trials(), tmp_path)
    assert "run.py" in str(caught.value)


def test_the_page_shows_scores_differences_and_how_many_trials_are_done(tmp_path):
    for seed, (base, mine) in enumerate([(0.30, 0.36), (0.32, 0.38), (0.34, 0.40)]):
        finish(tmp_path, Trial(DATA, BASELINE, seed), base)
        finish(tmp_path, Trial(DATA, ARM, seed), mine + seed / 1000)
    page = table.page(read.read_results(all_trials(), tmp_path))
    assert "6 of 72 trials are done" in page
    assert "| baseline | 3 | 0.320 (0.270 to 0.370) | 0.250 | - | - | - |" in page
    assert "| augmentation | 3 | 0.381 (0.329 to 0.433) | 0.250 | +6.1 (+5.9 to +6.3) |" in page
    assert r"| +10 to 15% | +6.1 \* | - | - | - |" in page
    assert "60 optimizer steps of 8 examples" in page
    assert "0.32 passes over orders_es, 1,500 rows" in page
    assert str(tmp_path) not in page


def test_the_page_holds_all_words_of_the_commands():
    page = table.page(paired({0: 0.2}, {0: 0.3}))
    for trial in all_trials():
        for part in (trial.data, trial.arm):
            assert f"| {part.name} | `{' '.join(part.overrides)}` |" in page or not part.overrides
        shared = set(trial.arguments()) - {*trial.data.overrides, *trial.arm.overrides}
        assert shared - {f"seed={trial.seed}"} < set(page.split())
