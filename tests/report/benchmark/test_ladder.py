import io
import json

from rich.console import Console

from exp.report.benchmark.ladder import ladder_json, print_ladder
from exp.report.benchmark.plot import plot_ladder
from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import Measurement
from exp.training.benchmark.summary import summarise
from exp.training.benchmark.turns import Turns

MEASURED = {
    rung: tuple(Measurement(s / speed, 8, 800, 3e9, 2**30 // speed, 2.0, 1.0) for s in (3, 4, 5))
    for speed, rung in enumerate(LADDER[:3], start=1)
}
TURNS = Turns((9e9, 9e9, 9e9), MEASURED, {LADDER[3]: "no such layout"})
SUMMARIES = summarise(TURNS, LADDER)


def printed(turns):
    text = io.StringIO()
    print_ladder(summarise(turns, LADDER), turns.not_measured, "a title", Console(file=text))
    return text.getvalue()


def test_a_piped_table_has_a_line_a_rung_and_the_range_of_each_figure():
    text = printed(TURNS)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "2.00 (1.60 to 2.67)" in lines[LADDER[0].title]
    assert "2.00 " in lines[LADDER[1].title]
    assert "1,024" in lines[LADDER[0].title]
    assert "no such layout" in lines[LADDER[3].title]


def test_one_repetition_has_no_range():
    once = Turns((9e9,), {LADDER[0]: MEASURED[LADDER[0]][:1]}, {})
    assert " to " not in printed(once)


def test_the_json_holds_every_measurement():
    content = json.loads(json.dumps(ladder_json(SUMMARIES, TURNS)))
    assert [rung["rung"] for rung in content["rungs"]] == [rung.name for rung in LADDER[:3]]
    assert [one["seconds"] for one in content["rungs"][0]["repetitions"]] == [3, 4, 5]
    assert content["not_measured"] == {"packed": "no such layout"}


def test_a_plot_names_every_rung_and_its_ratio(tmp_path):
    paths = [tmp_path / "ladder.svg", tmp_path / "ladder.png"]
    plot_ladder(SUMMARIES, "model and machine", paths)
    # Text is drawn as paths; matplotlib keeps it in comments.
    svg = paths[0].read_text()
    for words in ("model and machine", "3.00 times", *(rung.title for rung in LADDER[:3])):
        assert f"<!-- {words}" in svg or words in svg.replace("  ", " ")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
