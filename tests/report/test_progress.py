import io
import re

import pytest
from rich.console import Console

from exp.report.progress import progress


def test_piped_progress_is_a_line_now_and_then_and_one_at_the_end() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress("predicting", 100, console=console, seconds_between_lines=0) as advance:
        for _ in range(4):
            advance(25)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(",")[0] for line in lines] == [
        f"predicting: {done}/100 rows" for done in (25, 50, 75, 100)
    ]
    assert re.search(r"rows/s, 0:00 left$", lines[0])
    assert re.search(r"rows/s, 0:00$", lines[-1])


def test_piped_progress_keeps_quiet_between_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress("predicting", None, unit="tokens", console=console) as advance:
        for _ in range(1000):
            advance(1)
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert line.startswith("predicting: 1000 tokens, ")


def test_speed_is_measured_behind_the_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("exp.report.progress.time.monotonic", lambda: clock)
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress("predicting", 1000, console=console) as advance:
        advance(900)  # from a cache

        def load() -> str:
            nonlocal clock
            clock += 50
            return "model"

        assert advance.behind(load)() == "model"
        clock += 20
        advance(40)
        clock += 30
        advance(60)
    first, last = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == "predicting: 940/1000 rows, 2 rows/s, 0:30 left"
    assert last == "predicting: 1000/1000 rows, 2 rows/s, 1:40"


def test_nothing_to_do_is_no_error() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress("predicting", 0, console=console):
        pass
    assert "0/0 rows" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_a_bar_with_count_and_rate() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with progress("[predicting]", 10, console=console) as advance:
        for _ in range(10):
            advance(1)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[predicting]" in shown
    assert "10/10" in shown
    assert "rows/s" in shown
