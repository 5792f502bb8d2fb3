"""The training ladder as a table and as plain data."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from exp.report.console import print_table
from exp.training.benchmark.ladder import Rung
from exp.training.benchmark.spread import Spread
from exp.training.benchmark.summary import RungSummary
from exp.training.benchmark.turns import Turns

MIB = 2**20
COLUMNS = (
    "rung",
    "examples/s",
    "ratio",
    "tokens/s",
    "useful GFLOP/s",
    "of GEMM peak",
    "peak memory MiB",
)


def print_ladder(
    summaries: Sequence[RungSummary],
    not_measured: dict[Rung, str],
    title: str,
    console: Console | None = None,
) -> None:
    """Print medians with their ranges, a rung a line, and why some were not measured."""
    rows = [
        (
            summary.rung.title,
            _words(summary.examples_per_second),
            _words(summary.ratio),
            _words(summary.tokens_per_second),
            _words(summary.useful_flops_per_second, 1e-9),
            _words(summary.share_of_peak, 100, "%"),
            _words(summary.peak_bytes, 1 / MIB),
        )
        for summary in summaries
    ]
    print_table(COLUMNS, rows, title=title, right=range(1, len(COLUMNS)), console=console)
    if not_measured:
        skipped = [(rung.title, reason) for rung, reason in not_measured.items()]
        print_table(("not measured", "because"), skipped, console=console)


def ladder_json(summaries: Sequence[RungSummary], turns: Turns) -> dict[str, Any]:
    """Everything that was measured: figures and, per repetition, what they were computed from."""
    return {
        "gemm_peak_flops_per_second": list(turns.gemm_peaks),
        "rungs": [
            {
                **{key: value for key, value in asdict(summary).items() if key != "rung"},
                "rung": summary.rung.name,
                "title": summary.rung.title,
                "repetitions": [asdict(one) for one in turns.measured[summary.rung]],
            }
            for summary in summaries
        ],
        "not_measured": {rung.name: reason for rung, reason in turns.not_measured.items()},
    }


def _words(value: Spread | None, factor: float = 1, unit: str = "") -> str:
    """The median, and the range where there is one."""
    if value is None:
        return "-"
    median, low, high = (_number(x * factor) for x in (value.median, value.low, value.high))
    return f"{median}{unit}" if low == high else f"{median}{unit} ({low} to {high})"


def _number(value: float) -> str:
    """Three digits that count, and no more decimals than they need."""
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{decimals}f}"
