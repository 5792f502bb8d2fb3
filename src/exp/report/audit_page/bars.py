"""Histograms as inline SVG; colours come from the page's style sheet, so they follow its theme."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, BASE = 300, 78, 62


def histogram(counts: Sequence[int], edges: Sequence[float], unit: str) -> Markup:
    """Draw one bar per pair of neighbouring edges, with the first and the last edge below."""
    highest = max(counts, default=0) or 1
    step = WIDTH / max(1, len(counts))
    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, unit)
    ]
    for position, count in enumerate(counts):
        height = max(1.0, count / highest * (BASE - 2)) if count else 0.0
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{:,.0f} to {:,.0f} {}: {:,} rows</title></rect>"
            ).format(
                *(position * step + 0.5, BASE - height, max(0.5, step - 1), height),
                *(edges[position], edges[position + 1], unit, count),
            )
        )
    parts.append(Markup('<line x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, BASE, BASE))
    for x, side, value in ((0, "start", edges[0]), (WIDTH, "end", edges[-1])):
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{:,.0f}</text>').format(
                x, HEIGHT - 3, side, value
            )
        )
    return Markup("").join([*parts, Markup("</svg>")])
