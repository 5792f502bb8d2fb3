"""metrics.jsonl: every logged point of a run, one JSON object per line.

The file is the truth; trackers mirror it. A line is

    {"step": 5, "epoch": 0.25, "time": 1767225600.123, "values": {"train/loss": 0.5, "lr": 0.001}}

with `time` in seconds since 1970 (UTC). JSON has no word for NaN and infinities: such a value is
null under `values`, and `"nonfinite": {"train/loss": "nan"}` beside it says which one it was.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from exp.redaction import redact

log = logging.getLogger(__name__)

# What reading a damaged line can raise; brackets nested too deep for the parser included.
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """What was logged at one step: names like `train/loss`, and their values."""

    step: int
    epoch: float | None
    time: float
    values: dict[str, float]


class MetricsLog:
    """Appends points to metrics.jsonl. Each line is handed to the system at once, so that a killed
    process loses nothing of what it logged; a killed machine may lose the last seconds.

    A run that is resumed goes on in the same file. A last line that was cut off by a crash is
    removed, with a warning, so that the next one does not run into it.

    Args:
        path: The file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_last_line(path)
        self._file = path.open("a", encoding="utf-8")

    def log(
        self, step: int, values: Mapping[str, SupportsFloat], epoch: float | None = None
    ) -> None:
        """Append one line. Values are numbers, or 0-d tensors (each costs a synchronisation)."""
        record: dict[str, Any] = {"step": step}
        if epoch is not None:
            record["epoch"] = epoch
        record["time"] = round(time.time(), 3)
        numbers = {redact(name): _number(value) for name, value in values.items()}
        nonfinite = {
            name: str(x)
            for name, x in numbers.items()
            if isinstance(x, float) and not math.isfinite(x)
        }
        record["values"] = {name: None if name in nonfinite else x for name, x in numbers.items()}
        if nonfinite:
            record["nonfinite"] = nonfinite
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[MetricPoint]:
    """Read the points in the order of the file; lines that are not whole are counted in a warning.

    A missing file is an empty log: the run ended before its first point.
    """
    if not path.is_file():
        return []
    points, broken = [], 0
    for line in path.read_bytes().splitlines():
        if not line.strip():
            continue
        try:
            points.append(_parse(json.loads(line)))
        except _DAMAGED:
            broken += 1
    if broken:
        log.warning("%s: %d line(s) could not be read and were left out.", path, broken)
    return points


def series(points: Iterable[MetricPoint]) -> dict[str, list[tuple[int, float]]]:
    """Turn points into one (step, value) curve per name, ordered by step.

    Steps that were repeated after a resume count once, with what was logged last.
    """
    curves: dict[str, dict[int, float]] = {}
    for point in points:
        for name, value in point.values.items():
            curves.setdefault(name, {})[point.step] = value
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def _number(value: SupportsFloat) -> float:
    # An int keeps its form (120, not 120.0), and one beyond the range of float does not overflow.
    return value if isinstance(value, int) else float(value)


def _parse(record: dict[str, Any]) -> MetricPoint:
    nonfinite = record.get("nonfinite", {})
    values = {
        name: float(nonfinite[name]) if value is None else value
        for name, value in record["values"].items()
    }
    if not all(isinstance(x, int | float) for x in (record["step"], *values.values())):
        raise ValueError("a step or a value is not a number")
    return MetricPoint(record["step"], record.get("epoch"), record["time"], values)


def _mend_last_line(path: Path) -> None:
    """End the last line if it is whole JSON; cut it off if it is not."""
    if not path.is_file():
        return
    content = path.read_bytes()
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    try:
        _parse(json.loads(tail))
    except _DAMAGED:
        os.truncate(path, len(content) - len(tail))
        log.warning("%s: the last line was cut off by a crash and has been removed.", path)
    else:
        with path.open("ab") as file:
            file.write(b"\n")
