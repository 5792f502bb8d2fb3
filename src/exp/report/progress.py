"""How far a command is: a bar on a terminal, a line now and then where the output is piped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Counts what is done."""

    def __call__(self, count: int) -> None:
        """Add what was done since the last call."""

    def behind(self, prepare: Callable[[], T]) -> Callable[[], T]:
        """Return `prepare` so that speed is measured from its end on.

        What was there before, such as rows from a cache, and the loading of a model say nothing
        about how fast the rest will come.
        """


@contextmanager
def progress(
    description: str,
    total: int | None,
    unit: str = "rows",
    console: Console | None = None,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Advance]:
    """Show how many of `total` are done, how fast, and the time left.

    Goes to standard error, so that results can be piped from standard output.

    Args:
        description: What is going on, such as "predicting".
        total: How many there are; None where that is not known.
        unit: What is counted.
        console: Where to, if not standard error.
        seconds_between_lines: How often a line is written when piped.

    Yields:
        What to call with the number of rows done since the last call.
    """
    console = console or Console(stderr=True)
    show = _bar if console.is_terminal else _lines
    with show(description, total, unit, console, seconds_between_lines) as advance:
        yield advance


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{_number(speed)} {self.unit}/s", style="dim")


class _Bar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def behind(self, prepare: Callable[[], T]) -> Callable[[], T]:
        return prepare  # its speed is that of the last half minute anyway


@contextmanager
def _bar(
    description: str, total: int | None, unit: str, console: Console, _: float
) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield _Bar(bar, bar.add_task(description, total=total))


class _Lines:
    def __init__(
        self, description: str, total: int | None, unit: str, console: Console, seconds: float
    ) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._console, self._seconds_between = console, seconds
        self._begun = self._start = self._last = time.monotonic()
        self._done = self._done_before = 0

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= self._seconds_between and self._done != self._total:
            self._last = now
            self.write(now)

    def behind(self, prepare: Callable[[], T]) -> Callable[[], T]:
        def prepared() -> T:
            result = prepare()
            self._start, self._done_before = time.monotonic(), self._done
            return result

        return prepared

    def write(self, now: float) -> None:
        line = self._line(now)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, now: float) -> str:
        done, total, unit = self._done, self._total, self._unit
        rate = (done - self._done_before) / max(now - self._start, 1e-9)
        of = "" if total is None else f"/{total}"
        text = f"{self._description}: {done}{of} {unit}, {_number(rate)} {unit}/s"
        if total is None or done >= total:
            return f"{text}, {_duration(now - self._begun)}"
        return f"{text}, {_duration((total - done) / rate)} left" if rate else text


@contextmanager
def _lines(
    description: str, total: int | None, unit: str, console: Console, seconds_between: float
) -> Iterator[Advance]:
    lines = _Lines(description, total, unit, console, seconds_between)
    try:
        yield lines
    finally:
        lines.write(time.monotonic())


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
