import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exp.report.run_report import content, write_run_report
from exp.report.run_report.page import script_json
from exp.rundir import RunDir
from exp.training.metrics_log import MetricsLog

HOSTILE = [
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=\"document.title='owned'\">",
    "${7*7} {{7*7}} {% raw %} <!-- --> ]]>",
    "\x1b[31mred\x1b]0;owned\x07 \u202eevil \ud800 \u2028",
    "'\"><svg onload=document.title='owned'>",
]


def row(number: int, text: str, errors: list[str]) -> dict[str, object]:
    return {
        "id": f"row-{number}",
        "input": text,
        "reference": {"producto": "A", "cantidad": number, "nota": text},
        "prediction": json.dumps({"producto": "A", "cantidad": number + 1, "nota": text}),
        "finish_reason": "stop",
        "errors": errors,
        "exact": not errors,
        "num_tokens": 12,
    }


def write_rows(
    run: RunDir, split: str, rows: list[dict[str, object]], stage: str = "after"
) -> None:
    path = run.predictions(split, stage)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run in which everything that can be hostile is."""
    run = RunDir(tmp_path / "run<b>")
    run.path.mkdir()
    run.config.write_text(f"task:\n  name: {json.dumps(HOSTILE[0])}\nlora:\n  r: 8\n")
    record = {
        "status": "completed",
        "versions": {HOSTILE[1]: HOSTILE[0]},
        "derived": [{"name": HOSTILE[0], "value": 4, "reason": HOSTILE[1]}],
    }
    run.record.write_text(json.dumps(record))
    with MetricsLog(run.metrics) as metrics:
        for step in range(1, 50):
            metrics.log(step, {"train/loss": 1 / step, f"val/{HOSTILE[0]}": float("nan")})
    sheet = {
        "field_f1": {"value": 0.7321, "low": 0.65, "high": 0.8, "count": 5},
        "bleu": None,
        "fields": [{"path": HOSTILE[0], "precision": 1, "recall": 0.5, "f1": 0.66, "support": 5}],
        "errors": {"wrong_value": 4, HOSTILE[0]: 1, "cut": 0},
        "primary_errors": {"wrong_value": 4},
        "finish_reasons": {"stop": 5},
    }
    base = {"field_f1": {"value": 0.1, "low": 0.05, "high": 0.15, "count": 5}}
    run.scores.write_text(json.dumps({"test": {"before": base, "after": sheet}, HOSTILE[0]: None}))
    rows = [row(i, text, ["wrong_value"]) for i, text in enumerate(HOSTILE)]
    write_rows(run, "test", [*rows, row(99, "exact", [])])
    write_rows(run, "test", [row(i, "base", ["unparsable"]) for i in range(3)], stage="before")
    return run


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
        else:
            self.text += data


def test_the_page_has_no_script_but_its_own_and_no_event_handler(run: RunDir) -> None:
    page = Page(write_run_report(run).read_text())
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "rows"}, {}]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not {"img", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.tags}


def test_the_security_policy_admits_the_script_of_the_page_alone(run: RunDir) -> None:
    page = Page(write_run_report(run).read_text())
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    (policy,) = (attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    assert "default-src 'none'" in str(policy)
    assert f"script-src 'sha256-{digest}';" in str(policy)


def test_the_page_refers_to_nothing_outside_itself(run: RunDir) -> None:
    page = Page(write_run_report(run).read_text())
    for _, attrs in page.tags:
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", write_run_report(run).read_text())


def test_text_of_the_data_is_on_the_page_as_text(run: RunDir) -> None:
    page = Page(write_run_report(run).read_text())
    assert HOSTILE[0] in page.text
    rows = json.loads(page.scripts[0])["test"]
    assert [found["input"] for found in rows[:3]] == HOSTILE[:3]
    assert rows[3]["input"].startswith("␛[31mred␛]0;owned␇")
    assert "\x1b" not in write_run_report(run).read_text()


def test_scores_stand_side_by_side_with_their_difference(run: RunDir) -> None:
    text = Page(write_run_report(run).read_text()).text
    for shown in ("0.100", "0.050 \u2013 0.150", "0.732", "0.650 \u2013 0.800", "+0.632"):
        assert shown in text


def test_each_interval_is_drawn_on_the_scale_of_its_own_score(run: RunDir) -> None:
    sheet = {"bleu": {"value": 25.0}, "text_match": {"value": 0.75}}
    run.scores.write_text(json.dumps({"test": {"after": sheet}}))
    html = write_run_report(run).read_text()
    assert re.findall(r'<b style="left:([\d.]+)%">', html) == ["25.00", "75.00"]
    assert "1, bleu 100" in html


def test_base_predictions_join_those_of_the_adapted_model(run: RunDir) -> None:
    splits = json.loads(Page(write_run_report(run).read_text()).scripts[0])
    assert list(splits) == ["test"]
    assert '"nota": "base"' in splits["test"][0]["before"]
    assert splits["test"][5]["before"] is None


def test_a_run_that_was_interrupted_at_once_has_a_report_that_says_so(tmp_path: Path) -> None:
    text = Page(write_run_report(RunDir(tmp_path)).read_text()).text
    assert "not complete" in text
    for name in ("config.yaml", "run.json", "metrics.jsonl", "scores.json"):
        assert f"{name} is not there." in text


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.jsonl", "scores.json"])
@pytest.mark.parametrize("damage", [b"{", b"[1, 2]", b"\xff\xfe\x00", b"a: [", b"[" * 5_000, b""])
@pytest.mark.thorough
def test_a_damaged_file_is_no_error(run: RunDir, name: str, damage: bytes) -> None:
    (run.path / name).write_bytes(damage)
    assert "field_f1" in write_run_report(run).read_text() or name == "scores.json"


def test_a_torn_line_of_predictions_is_counted(run: RunDir) -> None:
    with run.predictions("test").open("a") as file:
        file.write('{"id": "torn", "inp')
    assert "predictions/test.jsonl: 1 line(s)" in Page(write_run_report(run).read_text()).text


def test_rows_beyond_the_limit_are_announced(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_ROWS", 1_000)
    write_rows(run, "train", [row(i, "x", []) for i in range(1_005)])
    page = Page(write_run_report(run).read_text())
    assert len(json.loads(page.scripts[0])["train"]) == 1_000
    assert "train: the first 1,000 of 1,005 rows" in page.text


def test_no_secret_reaches_the_report(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-report")
    run.config.write_text("model:\n  name: canary-report\n")
    run.record.write_text(json.dumps({"status": "failed", "error": ["canary-report"]}))
    write_rows(run, "test", [row(1, "canary-report", [])])
    assert "canary-report" not in write_run_report(run).read_text()


def test_json_cannot_end_its_script_element() -> None:
    value = ["</script>", "<!--", "\u2028", "&lt;"]
    text = script_json(value)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == value


# ---- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


def dom_of(report: Path, fragment: str) -> str:
    """Open the report at `#fragment` and return the document as the browser has it afterwards."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={report.parent / 'profile'}"
    result = subprocess.run(
        [*command, profile, "--virtual-time-budget=5000", f"{report.as_uri()}#{fragment}"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return result.stdout


@pytest.mark.slow
@in_browser
def test_the_browser_shows_the_examples_of_one_error_kind(run: RunDir) -> None:
    dom = dom_of(write_run_report(run), "split=test&kind=wrong_value")
    assert "5 of 6 examples." in dom
    assert dom.count('class="card"') == 5
    assert '<mark class="missing">0</mark>' in dom
    assert '<mark class="wrong">1</mark>' in dom


@pytest.mark.slow
@in_browser
def test_a_missing_field_is_marked_as_its_whole_line(run: RunDir) -> None:
    reference = {"producto": "A", "unidad": "kg", "cantidad": 5}
    prediction = json.dumps({"producto": "A", "cantidad": 5})
    differing = {"reference": reference, "prediction": prediction}
    write_rows(run, "test", [row(1, "x", ["missing_field"]) | differing])
    dom = dom_of(write_run_report(run), "")
    cards = dom.split('id="cards"')[1]
    assert (
        '\n  <mark class="missing">"unidad":</mark> <mark class="missing">"kg",</mark>\n' in cards
    )
    assert cards.count("<mark") == 2


@pytest.mark.slow
@in_browser
def test_the_browser_searches_texts(run: RunDir) -> None:
    dom = dom_of(write_run_report(run), "query=ROW-99")
    assert "1 of 6 examples." in dom
    assert "<b>row-99</b>" in dom


@pytest.mark.slow
@in_browser
def test_hostile_text_stays_text_in_the_browser(run: RunDir) -> None:
    dom = dom_of(write_run_report(run), "split=test")
    assert dom.count('class="card"') == 6
    assert "<title>run&lt;b&gt;</title>" in dom
    assert "<img" not in dom
    assert "<svg onload" not in dom
