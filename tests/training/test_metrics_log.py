import json
import logging
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.training.metrics_log import MetricPoint, MetricsLog, read_metrics, series


def test_what_is_logged_is_read_back_in_order(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics:
        metrics.log(5, {"train/loss": 0.5, "lr": 1e-3}, epoch=0.25)
        metrics.log(10, {"val/field_f1": 0.75})
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (first.step, first.epoch, first.values) == (5, 0.25, {"train/loss": 0.5, "lr": 1e-3})
    assert (second.step, second.epoch, second.values) == (10, None, {"val/field_f1": 0.75})
    assert first.time <= second.time


def test_every_line_is_on_disk_before_the_next_call(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    metrics.log(1, {"x": 1})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    metrics.close()


def test_values_that_json_cannot_hold_are_null_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as metrics:
        metrics.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["values"] == {"a": None, "b": None, "c": None, "d": 1.0}
    assert record["nonfinite"] == {"a": "nan", "b": "inf", "c": "-inf"}
    (point,) = read_metrics(path)
    assert math.isnan(point.values["a"])
    assert (point.values["b"], point.values["c"]) == (math.inf, -math.inf)


def test_a_number_like_object_is_logged_as_its_number(tmp_path: Path) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 2.5

    with MetricsLog(tmp_path / "m.jsonl") as metrics:
        metrics.log(1, {"x": Scalar(), "n": 3, "huge": 10**400})
    (point,) = read_metrics(tmp_path / "m.jsonl")
    assert point.values == {"x": 2.5, "n": 3, "huge": 10**400}


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_log_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    with MetricsLog(path) as metrics:
        for step in range(5):
            metrics.log(step, {"train/loss": step / 7, "é": math.nan}, epoch=step / 3)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    with MetricsLog(path) as metrics:
        metrics.log(99, {"after": 1})
    points = read_metrics(path)
    whole = content.count(b"\n")
    assert [point.step for point in points[:whole]] == list(range(whole))
    assert points[-1].values == {"after": 1}
    assert len(points) - whole in (1, 2)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '"x"',
        "[" * 5_000,
        '{"step": 1}',
        '{"step": "1", "time": 0, "values": {}}',
        '{"step": 1, "time": 0, "values": {"x": "1"}}',
        '{"step": 1, "time": 0, "values": {"x": null}}',
    ],
)
def test_a_line_of_another_form_is_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{line}\n{{"step": 2, "time": 0, "values": {{"x": 1}}}}\n')
    assert [point.step for point in read_metrics(path)] == [2]


def test_a_torn_last_line_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "time": 0, "values": {"x": 1}}\n{"step": 2, "ti')
    with caplog.at_level(logging.WARNING):
        assert [point.step for point in read_metrics(path)] == [1]
    assert "1 line(s)" in caplog.text


def test_a_missing_file_is_an_empty_log(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_step_that_was_repeated_after_a_resume_counts_once() -> None:
    points = [
        MetricPoint(1, None, 0.0, {"loss": 3.0}),
        MetricPoint(2, None, 1.0, {"loss": 2.0}),
        MetricPoint(1, None, 2.0, {"loss": 2.5}),
    ]
    assert series(points) == {"loss": [(1, 2.5), (2, 2.0)]}


def test_a_secret_in_a_name_does_not_reach_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-name")
    with MetricsLog(tmp_path / "metrics.jsonl") as metrics:
        metrics.log(1, {"x/canary-name": 1.0})
    assert "canary-name" not in (tmp_path / "metrics.jsonl").read_text()
