"""What commands print: tables on a terminal, plain lines where the output is piped.

Text from data is shown through `visible`, so that no escape sequence in it reaches the terminal,
and never as rich markup. Secrets are redacted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from exp.records import Derived
from exp.redaction import redact
from exp.report.scores import score_rows, stage_names
from exp.report.visible import shorten, visible

MAX_CELL_CHARS = 200


def print_scores_table(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    title: str = "Scores",
    console: Console | None = None,
) -> None:
    """Print the scores before and after training, their 95% intervals and the difference.

    Args:
        before: The base model's sheet of scores.json, if it was scored.
        after: The adapted model's sheet.
        title: What the scores are of, such as the split.
        console: Where to; standard output if not given.
    """
    scores = score_rows(before, after)
    rows = [
        (
            row.name,
            "-" if row.before is None else str(row.before),
            "-" if row.after is None else str(row.after),
            "-" if row.difference is None else f"{row.difference:+.3f}",
        )
        for row in scores
    ]
    columns = ("score", *stage_names(scores), "difference")
    if before is None or after is None:
        only = 2 if before is None else 1
        rows = [(row[0], row[only], "", "") for row in rows]
        columns = ("score", "value", "", "")
    kept = [i for i, column in enumerate(columns) if column]
    print_table(
        [columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        title=title,
        right=kept[1:],
        console=console,
    )


def print_predictions(
    rows: Iterable[Mapping[str, Any]], title: str = "Predictions", console: Console | None = None
) -> None:
    """Print predictions below their inputs and references, one block each.

    Args:
        rows: As in predictions/<split>.jsonl: id, input, reference, prediction, exact.
        title: A heading.
        console: Where to; standard output if not given.
    """
    console = console or Console()
    _print_title(title, console)
    for row in rows:
        exact = bool(row.get("exact"))
        _print_line(
            console,
            (_cell(row.get("id", "")), "bold"),
            ("  exact" if exact else "  differs", "green" if exact else "yellow"),
        )
        for label in ("input", "reference", "prediction"):
            _print_line(console, (f"  {label:<12}", "dim"), (_cell(row.get(label)), ""))


def print_derived(values: Sequence[Derived], console: Console | None = None) -> None:
    """Print each value that was computed from others, and why it came out so."""
    print_table(
        ("derived", "value", "because"),
        [(value.name, _cell(value.value), value.reason) for value in values],
        console=console,
    )


def print_next_steps(lines: Sequence[str], console: Console | None = None) -> None:
    """Print where things are and what to type next, one line each."""
    console = console or Console()
    _print_title("Next", console)
    for line in lines:
        _print_line(console, (f"  {visible(redact(line))}", ""))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str | None = None,
    right: Sequence[int] = (),
    console: Console | None = None,
) -> None:
    """Print rows of text under their columns; a grid on a terminal, aligned lines when piped.

    Args:
        columns: Headings.
        rows: As many cells each as there are columns.
        title: Printed above.
        right: Indices of the columns that are aligned to the right.
        console: Where to; standard output if not given.
    """
    console = console or Console()
    cells = [[visible(redact(cell)) for cell in row] for row in rows]
    if not console.is_terminal:
        if title:
            _print_title(title, console)
        for line in _aligned([list(columns), *cells], right):
            _print_line(console, (line, ""))
        return
    heading = Text(visible(title)) if title else None
    table = Table(title=heading, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        # Folded, for by default what is too wide is cut off.
        justify: JustifyMethod = "right" if i in right else "left"
        table.add_column(Text(column), justify=justify, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _aligned(lines: Sequence[Sequence[str]], right: Sequence[int]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(visible(redact(text)), MAX_CELL_CHARS)


def _print_title(title: str, console: Console) -> None:
    console.print()
    _print_line(console, (visible(title), "bold"))


def _print_line(console: Console, *parts: tuple[str, str]) -> None:
    # Piped lines are not wrapped: whoever reads them may cut at line ends.
    console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal, highlight=False)
