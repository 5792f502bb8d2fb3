"""Waiting for batches is told apart from validating, by a clock that only the two of them move."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from exp.data.datamodule import StepDataset
from exp.training import module

Build = Callable[..., Any]
PREPARING, VALIDATING = 10.0, 990.0


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def validate(self) -> dict[str, float]:
        self.now += VALIDATING
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, prepare = Clock(), StepDataset.__getitem__

    def slowly(self: StepDataset, index: int) -> Any:
        clock.now += PREPARING
        return prepare(self, index)

    monkeypatch.setattr(StepDataset, "__getitem__", slowly)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def test_the_share_of_waiting_leaves_out_validation(training: Build, clock: Clock) -> None:
    run = training(steps=4, validate_every=0.25, validate=clock.validate)
    run.fit()
    shares = [values["train/data_wait_share"] for _, _, values in run.records][1:]
    assert shares == pytest.approx([PREPARING / (PREPARING + VALIDATING)] * 3)


def test_without_anything_else_to_do_all_time_is_waiting(training: Build, clock: Clock) -> None:
    run = training(steps=4, validate_every=4.0)
    run.fit()
    shares = [values["train/data_wait_share"] for _, _, values in run.records][1:]
    assert shares == pytest.approx([1.0] * 3)
