"""The training ladder as a picture: examples per second, and peak memory, a bar a rung."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exp.training.benchmark.spread import Spread
from exp.training.benchmark.summary import RungSummary

GIB = 2**30
SPEED, MEMORY, INK, FAINT = "#3b6ea5", "#b9c4d0", "#2b2b2b", "#8a8a8a"
BAR_HEIGHT, ROW_INCHES, FRAME_INCHES, WIDTH_INCHES = 0.62, 0.42, 1.3, 9.0
# Room to the right of the longest bar for its figure.
HEADROOM = 1.45


def plot_ladder(summaries: Sequence[RungSummary], subtitle: str, paths: Sequence[Path]) -> None:
    """Draw the ladder, top to bottom, into each path; the suffix says the format.

    Args:
        summaries: At least one rung.
        subtitle: Model, machine and workload.
        paths: Files to write, such as training.svg.
    """
    height = FRAME_INCHES + ROW_INCHES * len(summaries)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    heading = subtitle.replace("; ", "\n", 1)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=9, color=FAINT)
    knows_memory = all(summary.peak_bytes is not None for summary in summaries)
    if knows_memory:
        speed, memory = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        peaks = [summary.peak_bytes for summary in summaries if summary.peak_bytes is not None]
        _bars(memory, "peak memory, GiB", MEMORY, peaks, [f"{_gib(p):.3g}" for p in peaks], 1 / GIB)
    else:
        speed = figure.subplots()
    rates = [summary.examples_per_second for summary in summaries]
    _bars(speed, "examples per second", SPEED, rates, [_speed_label(s) for s in summaries], 1)
    speed.set_yticks(range(len(summaries)), [summary.rung.title for summary in summaries])
    speed.invert_yaxis()
    for path in paths:
        figure.savefig(path, dpi=160)


def _bars(
    axes: Axes,
    title: str,
    colour: str,
    values: Sequence[Spread],
    labels: Sequence[str],
    factor: float,
) -> None:
    medians = [value.median * factor for value in values]
    ranges = [
        [(value.median - value.low) * factor for value in values],
        [(value.high - value.median) * factor for value in values],
    ]
    whiskers = {"ecolor": INK, "elinewidth": 0.8}
    axes.barh(range(len(values)), medians, BAR_HEIGHT, color=colour, xerr=ranges, error_kw=whiskers)
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.annotate(
            label,
            (value.high * factor, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    longest = max(value.high for value in values) * factor
    axes.set_xlim(0, longest * HEADROOM or 1)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="both", length=0, labelcolor=INK, labelsize=9)
    axes.set_xticks([])


def _speed_label(summary: RungSummary) -> str:
    rate = f"{summary.examples_per_second.median:.3g}"
    return rate if summary.ratio is None else f"{rate}   {summary.ratio.median:.2f} times"


def _gib(value: Spread) -> float:
    return value.median / GIB
