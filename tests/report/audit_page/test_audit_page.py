import html.parser
import re
from pathlib import Path

import pytest
from rich.console import Console

from exp.config.schema import OutputFormat
from exp.data.audit.audit import audit
from exp.data.audit.checks import CHECKS
from exp.data.audit.settings import AuditSettings
from exp.data.render import Renderer
from exp.data.task import Task
from exp.model.tokenizer import byte_chat_format
from exp.records import Example
from exp.report.audit_page import print_audit, write_audit_page
from exp.report.audit_page.bars import histogram
from exp.report.audit_page.cards import cut, make_cards

HOSTILE = (
    "<script>document.title='owned'</script> </p></html>",
    "'\"><svg onload=document.title='owned'>",
    "\x1b[31mred \u202eevil {{ 7 * 7 }} ${x}",
)
SCHEMA = {"properties": {"what": {"type": "string"}}, "required": ["what"]}


class Rows(list):
    """Examples in memory with what is asked of those on disk."""

    name = "<b>rows</b>.jsonl"
    content_key = "rows"

    def place(self, index):
        return f"{self.name}, line {index + 1}"


@pytest.fixture
def made():
    """A task in which everything that can be hostile is, audited."""
    rows = [Example(f"row-{n}", f"{n} nails, {n * n} pins", {"what": "nails"}) for n in range(30)]
    rows += [Example(text, text, {"what": text}) for text in HOSTILE]
    rows += [Example("broken", "a bag of nuts", {HOSTILE[0]: "nuts"}), Example("n", "no", 5)]
    task = Task(
        name=HOSTILE[1],
        instruction="Write <b>JSON</b>.",
        output_format=OutputFormat.json,
        schema=SCHEMA,
        language=None,
        monitor="field_f1",
        splits={"train": Rows(rows)},
    )
    renderer = Renderer(byte_chat_format(), task.instruction, task.output_format, task.schema)
    return task, renderer, audit(task, renderer, AuditSettings(max_length_tokens=2048))


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.labels = [], "", ""
        self._in_label = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_label = tag == "i" and dict(attrs)["class"] == "label"

    def handle_endtag(self, tag):
        self._in_label = False

    def handle_data(self, data):
        self.text += data
        if self._in_label:
            self.labels += data


@pytest.fixture
def page(made, tmp_path):
    task, renderer, report = made
    file = tmp_path / "audit.html"
    write_audit_page(file, report, task, renderer, model="tiny<i>", num_random=3, seed=0)
    return file.read_text()


def test_the_page_has_no_script_and_refers_to_nothing_outside_itself(page):
    parsed = Page(page)
    names = {tag for tag, _ in parsed.tags}
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & names
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?://", page)
    (policy,) = (attrs["content"] for _, attrs in parsed.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_text_of_the_data_is_on_the_page_as_text(page):
    text = Page(page).text
    assert HOSTILE[1] in text
    assert "{{ 7 * 7 }}" in text
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_every_link_leads_to_a_row_that_is_shown(page):
    parsed = Page(page)
    links = {attrs["href"] for tag, attrs in parsed.tags if tag == "a"}
    names = {f"#{attrs['id']}" for _, attrs in parsed.tags if "id" in attrs}
    assert links <= names
    assert "#train-33" in links


def test_labels_are_told_apart_from_the_prompt(page):
    labels = Page(page).labels
    assert '{"what":"nails"}<|end|>' in labels
    assert "Write" not in labels
    assert "pins" not in labels


def test_each_finding_is_there_with_its_fix(page, made):
    text = Page(page).text
    for finding in made[2].findings:
        assert finding.check in text
        assert finding.fix in text
    checks = {finding.check for finding in made[2].findings}
    assert f"{len(CHECKS) - len(checks)} of {len(CHECKS)} checks" in text


def test_an_output_that_cannot_be_rendered_is_shown_as_it_is(made):
    task, renderer, report = made
    cards = {card.id: card for card in make_cards(report, task, renderer, 0, 0)}
    assert cards["n"].labels == ()
    assert "5" in cards["n"].text


def test_faulty_rows_come_first_then_long_ones_then_some_by_chance(made):
    task, renderer, report = made
    cards = make_cards(report, task, renderer, 4, 0)
    kinds = [
        0 if card.faulty else 1 if "among the longest" in card.reasons else 2 for card in cards
    ]
    assert kinds == sorted(kinds)
    assert sum("by chance" in card.reasons for card in cards) == 4
    assert len({card.anchor for card in cards}) == len(cards)


def test_the_same_seed_shows_the_same_rows(made):
    task, renderer, report = made
    names = [
        [card.anchor for card in make_cards(report, task, renderer, 5, seed)] for seed in (1, 1, 2)
    ]
    assert names[0] == names[1] != names[2]


def test_tokens_together_are_the_whole_text():
    renderer = Renderer(byte_chat_format(), "", OutputFormat.json, None)
    text = "camión ñandú 漢字 plain"
    (ids,) = renderer.render_prompts([text])
    tokens = cut(renderer.tokenizer, ids)
    assert [token.id for token in tokens] == list(ids)
    assert text in "".join(token.text for token in tokens)


def test_bars_are_as_high_as_their_counts_say():
    heights = re.findall(
        r'width="[\d.]+" height="([\d.]+)"', histogram([5, 0, 10], [0, 1, 2, 3], "x")
    )
    first, empty, highest = map(float, heights)
    assert (empty, first * 2) == (0, highest)


def test_the_console_shows_checks_findings_and_a_verdict(made, capsys):
    print_audit(made[2], "orders", Console(width=200))
    shown = capsys.readouterr().out
    assert re.search(r"^error +unwritable_output +1 ", shown, re.MULTILINE)
    assert re.search(r"^ok +empty_id +- ", shown, re.MULTILINE)
    assert "\nunwritable_output: 1 of 35 train rows have an output" in shown
    assert "\n  fix:   task.output_format=text" in shown
    assert "would stop a training" in shown
    assert "\x1b" not in shown


def test_the_file_is_written_whole_or_not_at_all(page, tmp_path):
    assert [path.name for path in Path(tmp_path).iterdir()] == ["audit.html"]
