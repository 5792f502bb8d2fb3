import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.report.run_report.chart import HEIGHT, WIDTH, charts, thin, ticks

finite = st.floats(min_value=-1e12, max_value=1e12, allow_subnormal=False)


@given(finite, finite)
def test_ticks_enclose_the_values_in_few_even_steps(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8


@given(st.lists(st.tuples(st.integers(0, 10**6), finite), min_size=1), st.integers(4, 50))
def test_thinning_keeps_the_extremes(points: list[tuple[float, float]], num_most: int) -> None:
    curve = sorted(dict(points).items())
    thinned = thin(curve, num_most)
    assert len(thinned) <= num_most
    assert set(thinned) <= set(curve)
    values = [y for _, y in curve]
    assert {y for _, y in thinned} >= {min(values), max(values)}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats()), min_size=1, max_size=60))
def test_any_curve_gives_a_drawing_within_its_frame(points: list[tuple[float, float]]) -> None:
    curve = sorted(dict(points).items())
    (chart,) = charts({"train/loss": curve})
    if not chart.svg:
        assert not any(abs(y) < 1e300 for _, y in curve)
        return
    for line in ElementTree.fromstring(chart.svg).iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_stages_of_one_quantity_share_a_chart_and_loss_comes_first() -> None:
    curve = [(1, 0.5), (2, 0.25)]
    names = ("lr", "val/field_f1", "train/loss", "val/loss")
    assert [(chart.title, chart.labels) for chart in charts(dict.fromkeys(names, curve))] == [
        ("loss", ("train", "val")),
        ("field_f1", ("val",)),
        ("lr", ("lr",)),
    ]


def test_values_that_cannot_be_drawn_are_counted() -> None:
    (chart,) = charts({"loss": [(1, math.nan), (2, 1.0), (3, math.inf)]})
    assert "2 of the values" in chart.note


@pytest.mark.parametrize("name", ["<script>", 'a"b/c', "x</svg>"])
def test_names_are_escaped(name: str) -> None:
    (chart,) = charts({name: [(1, 1.0)]})
    ElementTree.fromstring(chart.svg)
    assert "<script" not in chart.svg
