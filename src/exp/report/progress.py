"""How far a command is: a bar on a terminal, a line now and then where the output is piped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(
    description: str,
    total: int | None,
    unit: str = "rows",
    console: Console | None = None,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done, how fast, and the time left.

    Goes to standard error, so that results can be piped from standard output.

    Args:
        description: What is going on, such as "predicting".
        total: How many there are; None where that is not known.
        unit: What is counted.
        console: Where to, if not standard error.
        seconds_between_lines: How often a line is written when piped.

    Yields:
        A function to call with the number of rows done since the last call.
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


@contextmanager
def _bar(
    description: str, total: int | None, unit: str, console: Console, _: float
) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(
    description: str, total: int | None, unit: str, console: Console, seconds_between: float
) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def line(now: float) -> str:
        rate = done / max(now - start, 1e-9)
        of = "" if total is None else f"/{total}"
        text = f"{description}: {done}{of} {unit}, {_number(rate)} {unit}/s"
        if total is None or done >= total:
            return f"{text}, {_duration(now - start)}"
        return f"{text}, {_duration((total - done) / rate)} left" if rate else text

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= seconds_between and done != total:
            last = now
            write(line(now))

    def write(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        yield advance
    finally:
        write(line(time.monotonic()))


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
