"""Line charts as inline SVG; colours come from the page's style sheet, so they follow its theme."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Curve = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 26
MAX_POINTS = 400
# Beyond it differences overflow; NaN and infinities are not below it either.
LARGEST = 1e300
# Fewer points than this are shown as dots too, as a line of one or two points is easily missed.
MAX_DOTS = 25


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing: curves that share a name and differ by stage, such as train and val."""

    title: str
    labels: tuple[str, ...]
    svg: Markup
    note: str


def charts(curves: Mapping[str, Curve]) -> list[Chart]:
    """Draw one chart per quantity: `train/loss` and `val/loss` go into one called loss.

    Loss comes first, then what was measured in validation, then the rest by name.
    """
    groups: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        stage, _, quantity = name.rpartition("/")
        groups.setdefault(quantity, {})[stage or quantity] = curve

    def rank(quantity: str) -> tuple[bool, bool, str]:
        return quantity != "loss", not any(s.startswith("val") for s in groups[quantity]), quantity

    return [_chart(quantity, groups[quantity]) for quantity in sorted(groups, key=rank)]


def _chart(title: str, curves: Mapping[str, Curve]) -> Chart:
    drawable = {
        stage: [(x, y) for x, y in curve if abs(y) < LARGEST] for stage, curve in curves.items()
    }
    dropped = sum(map(len, curves.values())) - sum(map(len, drawable.values()))
    note = f"Not drawn, as not finite: {dropped} of the values." if dropped else ""
    return Chart(title, tuple(curves), _svg(title, list(drawable.values())), note)


def _svg(title: str, curves: Sequence[Curve]) -> Markup:
    points = [point for curve in curves for point in curve]
    if not points:
        return Markup("")
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    x_low, x_high = min(x for x, _ in points), max(max(x for x, _ in points), x_ticks[-1])
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    ]
    for y in y_ticks:
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
                '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, LEFT - 6, down(y) + 3.5, _label(y, y_ticks), y=down(y))
        )
    for x in (x for x in x_ticks if x >= x_low):
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                across(x), HEIGHT - 8, _label(x, x_ticks)
            )
        )
    for i, curve in enumerate(curves):
        drawn = [(across(x), down(y)) for x, y in thin(curve, MAX_POINTS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(Markup('<polyline class="c{}" points="{}"/>').format(i % 6, line))
        if len(curve) <= MAX_DOTS:
            for (x, y), (step, value) in zip(drawn, curve, strict=True):
                parts.append(
                    Markup(
                        '<circle class="c{}" cx="{:.1f}" cy="{:.1f}" r="3">'
                        "<title>step {:g}: {:.4g}</title></circle>"
                    ).format(i % 6, x, y, step, value)
                )
    return Markup("").join([*parts, Markup("</svg>")])


def ticks(low: float, high: float, num_most: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], a step of 1, 2 or 5 times a power of ten apart."""
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, 1 / LARGEST):
        margin = size * 0.1 if size > 1 / LARGEST else 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / num_most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def thin(curve: Curve, num_most: int) -> Curve:
    """Keep the lowest and the highest point of each of equal stretches, so that spikes stay."""
    if len(curve) <= num_most:
        return curve
    stretch = math.ceil(len(curve) / (num_most // 2))
    kept = []
    for start in range(0, len(curve), stretch):
        part = curve[start : start + stretch]
        extremes = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept.extend(sorted(extremes))
    return kept


def _label(value: float, all_ticks: Sequence[float]) -> str:
    step = all_ticks[1] - all_ticks[0]
    if max(map(abs, all_ticks)) >= 1e6 or step < 1e-4:
        return f"{value:.2g}" if value else "0"
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}"
