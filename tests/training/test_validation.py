from collections.abc import Callable, Mapping
from typing import Any

import pytest

from exp.training.checkpoint import find_checkpoint, read_checkpoint
from exp.training.validation import Progress, validation_steps

Build = Callable[..., Any]


def scores_in_turn(*scores: float) -> Callable[[], Mapping[str, float]]:
    rest = iter(scores)
    return lambda: {"field_f1": next(rest)}


def test_only_a_better_score_counts_as_progress() -> None:
    progress = Progress()
    assert progress.update(1, 0.5)
    assert not progress.update(2, 0.5)
    assert not progress.update(3, 0.4)
    assert (progress.best_step, progress.best_score, progress.stale) == (1, 0.5, 2)
    assert progress.update(4, 0.6)
    assert (progress.best_step, progress.stale) == (4, 0)


@pytest.mark.parametrize(
    ("every", "expected"), [(1.0, {4, 8, 10}), (0.5, {2, 4, 6, 8, 10}), (99, {10}), (0.01, 10)]
)
def test_validation_comes_as_planned_and_behind_the_last_step(
    training: Build, every: float, expected: set[int] | int
) -> None:
    plan = training().data.plan  # ten steps, four an epoch
    steps = validation_steps(plan, every)
    assert steps == (set(range(1, 11)) if expected == 10 else expected)


def test_the_best_checkpoint_is_that_of_the_best_score(training: Build) -> None:
    run = training(validate=scores_in_turn(0.2, 0.9, 0.4))
    outcome = run.fit()
    assert (outcome.best_step, outcome.best_score, outcome.stopped_by) == (8, 0.9, None)
    assert find_checkpoint(run.run, "best").name == "step_000008"
    assert find_checkpoint(run.run, "last").name == "step_000010"
    logged = {step: v["val/field_f1"] for step, _, v in run.records if "val/field_f1" in v}
    assert logged == {4: 0.2, 8: 0.9, 10: 0.4}


def test_training_stops_when_patience_ends(training: Build) -> None:
    run = training(validate=scores_in_turn(0.5, 0.4, 0.3), steps=40, patience=2)
    outcome = run.fit()
    assert (outcome.steps, outcome.best_step, outcome.stopped_by) == (12, 4, "patience")


def test_training_stops_when_the_minutes_are_over_with_a_checkpoint(training: Build) -> None:
    run = training(minutes=1e-9)
    outcome = run.fit()
    assert (outcome.steps, outcome.stopped_by) == (1, "minutes")
    assert find_checkpoint(run.run, "best").name == "step_000001"


def test_a_validation_that_fails_costs_no_trained_step(training: Build, caplog: Any) -> None:
    def fails() -> Mapping[str, float]:
        raise OSError("the disk is gone")

    run = training(validate=fails)
    with pytest.raises(OSError, match="the disk is gone"):
        run.fit()
    kept = find_checkpoint(run.run, "last")
    assert kept.name == "step_000004"
    assert read_checkpoint(kept).adapter
    assert f"exp evaluate run={run.run.path} checkpoint=last" in caplog.text


def test_without_scores_the_newest_checkpoint_is_the_best(training: Build) -> None:
    run = training()
    assert run.fit().best_step == 10
