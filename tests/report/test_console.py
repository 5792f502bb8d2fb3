import io
from collections.abc import Callable

import pytest
from rich.console import Console

from exp.records import Derived
from exp.report.console import (
    print_derived,
    print_next_steps,
    print_predictions,
    print_scores_table,
    print_table,
)

SHEET = {
    "field_f1": {"value": 0.7321, "low": 0.65, "high": 0.8, "count": 300},
    "errors": {"cut": 1},
}
BASE = {"field_f1": {"value": 0.1, "low": 0.05, "high": 0.15, "count": 300}}
HOSTILE = "\x1b[31m\x1b]0;owned\x07 [red]markup[/red] [/] ${x} \u202e\ud800\n"


def piped(show: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), force_terminal=False, width=40)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def on_terminal(show: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_piped_scores_are_plain_aligned_lines() -> None:
    assert piped(lambda console: print_scores_table(BASE, SHEET, "test", console)).split("\n") == [
        "",
        "test",
        "score                     before                   after  difference",
        "field_f1  0.100 (0.050 to 0.150)  0.732 (0.650 to 0.800)      +0.632",
        "",
    ]


def test_stages_of_different_numbers_of_rows_say_so() -> None:
    base = {"field_f1": BASE["field_f1"] | {"count": 50}}
    shown = piped(lambda console: print_scores_table(base, SHEET, "test", console))
    assert shown.split("\n")[2:4] == [
        "score            before, 50 rows         after, 300 rows  difference",
        "field_f1  0.100 (0.050 to 0.150)  0.732 (0.650 to 0.800)      +0.632",
    ]


def test_scores_of_one_stage_have_one_column() -> None:
    shown = piped(lambda console: print_scores_table(None, SHEET, "test", console))
    assert shown.split("\n")[2:4] == [
        "score                      value",
        "field_f1  0.732 (0.650 to 0.800)",
    ]
    assert "0.100" in piped(lambda console: print_scores_table(BASE, None, "test", console))


def test_a_terminal_gets_the_same_numbers() -> None:
    shown = on_terminal(lambda console: print_scores_table(BASE, SHEET, "test", console))
    for number in ("0.100 (0.050 to 0.150)", "0.732 (0.650 to 0.800)", "+0.632"):
        assert number in shown


@pytest.mark.parametrize("capture", [piped, on_terminal])
def test_no_escape_sequence_of_the_data_is_printed(
    capture: Callable[[Callable[[Console], None]], str],
) -> None:
    row = dict.fromkeys(("id", "input", "reference", "prediction"), HOSTILE) | {"exact": False}

    def show(console: Console) -> None:
        print_predictions([row], HOSTILE, console)
        print_derived([Derived(HOSTILE, {HOSTILE: HOSTILE}, HOSTILE)], console)
        print_next_steps([HOSTILE], console)
        print_table(["a"], [[HOSTILE]], title=HOSTILE, console=console)

    shown = capture(show)
    assert "[31m" in shown
    assert "\x1b[31m" not in shown
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "[red]markup[/red]" in shown.replace("\n", " ")
    shown.encode("utf-8")


def test_a_long_prediction_is_cut_and_says_so() -> None:
    row = {"id": "a", "input": "x", "reference": {"a": 1}, "prediction": "y" * 500, "exact": False}
    shown = piped(lambda console: print_predictions([row], console=console))
    assert "… (+300 characters)" in shown
    assert '{"a": 1}' in shown
    assert "differs" in shown


def test_piped_lines_are_not_wrapped() -> None:
    line = "exp evaluate run=" + "x" * 200
    assert line in piped(lambda console: print_next_steps([line], console))


def test_a_cell_that_is_wider_than_the_terminal_is_folded_and_not_cut() -> None:
    path = "outputs/" + "x" * 200
    shown = on_terminal(lambda console: print_table(["a", "path"], [["1", path]], console=console))
    assert "…" not in shown
    assert shown.count("x") == 200


def test_derived_values_stand_beside_their_reasons() -> None:
    shown = piped(lambda console: print_derived([Derived("a.b", 4, "16 / 4")], console))
    assert shown.splitlines()[-1].split() == ["a.b", "4", "16", "/", "4"]


def test_a_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-console")
    row = {"id": "a", "input": "canary-console", "reference": ["canary-console"], "prediction": ""}

    def show(console: Console) -> None:
        print_predictions([row], console=console)
        print_next_steps(["canary-console"], console)
        print_derived([Derived("a", "canary-console", "canary-console")], console)

    assert "canary-console" not in piped(show)
