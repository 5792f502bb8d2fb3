"""From the result of an audit to audit.html."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from exp.data.audit.checks import BY_NAME, CHECKS, Check
from exp.data.audit.report import AuditReport, FaultyRow, Finding, SplitFacts
from exp.data.render import Renderer
from exp.data.task import Task
from exp.publish import write_atomically
from exp.redaction import redact
from exp.report.audit_page.bars import histogram
from exp.report.audit_page.cards import anchor, make_cards, shared_tokens
from exp.report.visible import shorten, visible

MOST_LISTED = 50
MOST_DETAIL_CHARS = 300
MOST_FIELDS = 60


@dataclass(frozen=True, slots=True)
class Drawing:
    """The histograms of one split."""

    split: SplitFacts
    tokens: Markup
    labels: Markup


def write_audit_page(
    path: Path,
    report: AuditReport,
    task: Task,
    renderer: Renderer,
    *,
    model: str,
    num_random: int,
    seed: int,
) -> Path:
    """Write the page: checks, distributions, and rows token by token.

    One file without any link to elsewhere and without a script; all text from data is escaped.

    Returns:
        The file written.
    """
    cards = make_cards(report, task, renderer, num_random, seed)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    html = environment.get_template("page.html.j2").render(
        task=visible(task.name),
        model=visible(model),
        report=report,
        findings=[(finding, BY_NAME[finding.check]) for finding in report.findings],
        passed=list(_passed(report)),
        listed=_listed,
        anchor=anchor,
        shown_anchors={card.anchor for card in cards},
        drawings=[_drawing(report, split) for split in report.splits],
        most_fields=MOST_FIELDS,
        head=shared_tokens(renderer),
        cards=cards,
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
    )
    write_atomically(path, html)
    return path


def _passed(report: AuditReport) -> Iterator[Check]:
    failed = {finding.check for finding in report.findings}
    return (check for check in CHECKS if check.name not in failed)


def _listed(finding: Finding) -> tuple[FaultyRow, ...]:
    return finding.rows[:MOST_LISTED]


def _shown(text: str) -> str:
    return shorten(visible(redact(str(text))), MOST_DETAIL_CHARS)


def _drawing(report: AuditReport, split: SplitFacts) -> Drawing:
    tokens = split.tokens.histogram if split.tokens else ()
    labels = split.labels.histogram if split.labels else ()
    return Drawing(
        split,
        histogram(tokens, report.token_edges, "tokens"),
        histogram(labels, report.label_edges, "labels"),
    )
