import csv
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from exp.config.schema import TrackerConfig, TrackerKind
from exp.errors import MissingExtraError
from exp.training.tracker import open as tracker_open
from exp.training.tracker.base import RunFacts, Tracker
from exp.training.tracker.guard import GuardedTracker
from exp.training.tracker.open import open_tracker

FACTS = RunFacts("a run", "exp", None, ("tag",), {"lora": {"r": 8}})


class Recorder:
    """Keeps the calls; fails or hangs at one of them."""

    def __init__(self, fail_at: str = "", hang_at: str = "", error: BaseException | None = None):
        self.calls: list[tuple[object, ...]] = []
        self.fail_at, self.hang_at = fail_at, hang_at
        self.error = error or OSError("disk full")
        self.released = threading.Event()

    def _call(self, name: str, *args: object) -> None:
        self.calls.append((name, *args))
        if name == self.fail_at:
            raise self.error
        if name == self.hang_at:
            self.released.wait(30)

    def start(self, facts: RunFacts) -> None:
        self._call("start", facts)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._call("log", step, dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._call("table", name, columns, rows)

    def finish(self, status: str) -> None:
        self._call("finish", status)

    def abort(self) -> None:
        self.calls.append(("abort",))
        self.released.set()


def run_through(tracker: Tracker) -> None:
    tracker.start(FACTS)
    tracker.log(1, {"train/loss": 2.0})
    tracker.log(2, {"train/loss": float("nan")})
    tracker.table("predictions", ["input", "prediction"], [["a | b\n", "=<script>"]])
    tracker.finish("completed")


def test_calls_reach_the_tracker_in_order() -> None:
    recorder = Recorder()
    tracker = GuardedTracker(recorder, timeout_seconds=10)
    run_through(tracker)
    assert [call[0] for call in recorder.calls] == ["start", "log", "log", "table", "finish"]
    assert tracker.on


@pytest.mark.parametrize("call", ["start", "log", "table", "finish"])
@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(3), KeyboardInterrupt()])
def test_a_failing_tracker_is_one_warning_and_then_off(
    call: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(fail_at=call, error=error)
    tracker = GuardedTracker(recorder, timeout_seconds=10)
    with caplog.at_level(logging.WARNING):
        run_through(tracker)
        tracker.log(3, {"x": 1.0})
    assert len(caplog.records) == 1
    assert type(error).__name__ in caplog.text
    assert not tracker.on
    assert recorder.calls[-1] == ("abort",)


@pytest.mark.parametrize("call", ["start", "log", "table", "finish"])
def test_a_hanging_tracker_costs_the_timeout_and_no_more(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(hang_at=call)
    tracker = GuardedTracker(recorder, timeout_seconds=0.2)
    start = time.perf_counter()
    run_through(tracker)
    assert 0.2 <= time.perf_counter() - start < 2
    assert len(caplog.records) == 1
    assert ("abort",) in recorder.calls


def test_a_tracker_that_falls_behind_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(hang_at="start")
    tracker = GuardedTracker(recorder, timeout_seconds=10, max_waiting=5)
    tracker.start(FACTS)
    for step in range(20):
        tracker.log(step, {"x": 1.0})
    start = time.perf_counter()
    tracker.finish("completed")
    assert time.perf_counter() - start < 1
    assert len(caplog.records) == 1


def test_no_secret_reaches_a_tracker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-17")
    recorder = Recorder(fail_at="finish", error=OSError("canary-17"))
    tracker = GuardedTracker(recorder, timeout_seconds=10)
    facts = RunFacts("canary-17", "canary-17", "canary-17", ("canary-17",), {"a": ["canary-17"]})
    tracker.start(facts)
    tracker.log(1, {"canary-17": 1.0})
    tracker.table("canary-17", ["canary-17"], [["canary-17"]])
    tracker.finish("completed")
    assert len(recorder.calls) == 5
    assert "canary-17" not in str(recorder.calls) + caplog.text


def test_no_tracker_is_the_default_and_writes_nothing(tmp_path: Path) -> None:
    run_through(open_tracker(TrackerConfig(), tmp_path / "tracker"))
    assert list(tmp_path.iterdir()) == []


def test_csv_has_one_line_per_value_and_a_file_per_table(tmp_path: Path) -> None:
    tracker = open_tracker(TrackerConfig(kind=TrackerKind.csv), tmp_path)
    run_through(tracker)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["step", "name", "value"],
            ["1", "train/loss", "2.0"],
            ["2", "train/loss", "nan"],
        ]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["input", "prediction"], ["a | b\n", "=<script>"]]
    assert json.loads((tmp_path / "config.json").read_text()) == {"lora": {"r": 8}}


def test_a_table_cannot_be_written_outside_the_tracker_folder(tmp_path: Path) -> None:
    tracker = open_tracker(TrackerConfig(kind=TrackerKind.csv), tmp_path / "tracker")
    tracker.start(FACTS)
    tracker.table("../../escaped", ["a"], [["b\ud800"]])
    tracker.finish("completed")
    assert [path.name for path in tmp_path.iterdir()] == ["tracker"]


def test_tensorboard_files_hold_the_curves_and_text_as_text(tmp_path: Path) -> None:
    tracker = open_tracker(
        TrackerConfig(kind=TrackerKind.tensorboard, timeout_seconds=60), tmp_path
    )
    run_through(tracker)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    first = events.Scalars("train/loss")[0]
    assert (first.step, first.value) == (1, 2.0)
    table = events.Tensors("predictions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "&#60;script&#62;" in table
    assert "a &#124; b<br>" in table


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_open, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="tensorboard") as caught:
        open_tracker(TrackerConfig(kind=TrackerKind.tensorboard), tmp_path)
    assert caught.value.fix == 'pip install "exp[tensorboard]"'


def test_every_kind_of_tracker_can_be_opened(tmp_path: Path) -> None:
    for kind in TrackerKind:
        assert callable(open_tracker(TrackerConfig(kind=kind), tmp_path).start)
