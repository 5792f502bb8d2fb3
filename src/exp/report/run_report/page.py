"""From the content of a run folder to report.html."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from exp.metrics.bleu import BLEU
from exp.publish import write_atomically
from exp.report.run_report.chart import charts
from exp.report.run_report.content import RunContent, read_run
from exp.report.scores import ScoreRow, score_rows, stage_names
from exp.report.visible import visible
from exp.rundir import RunDir

# What of the configuration stands at the top; everything is in the last section.
FACTS = (
    "model.name",
    "task.name",
    "hardware.name",
    "lora.r",
    "optimizer.lr",
    "training.epochs",
    "training.batch_size",
    "seed",
)


@dataclass(frozen=True, slots=True)
class SplitScores:
    """What the page shows of one split's scores.

    Tables are those of the adapted model if it was scored, else of the base model.
    """

    split: str
    rows: tuple[ScoreRow, ...]
    num_examples: int | None
    fields: list[dict[str, Any]]
    errors: list[tuple[str, int]]
    finish_reasons: dict[str, int]

    @property
    def stage(self) -> str:
        return "after training" if any(row.after for row in self.rows) else "before training"

    @property
    def has_both(self) -> bool:
        return any(row.before for row in self.rows) and any(row.after for row in self.rows)

    @property
    def stage_names(self) -> tuple[str, str]:
        return stage_names(self.rows)

    @property
    def right_end(self) -> str:
        """What the drawn intervals end at, in words."""
        has_bleu = any(row.name == BLEU.name for row in self.rows)
        return f"1, {BLEU.name} 100" if has_bleu else "1"


def largest(row: ScoreRow) -> float:
    """What a score can be at the most: BLEU counts to 100, all others to 1."""
    return 100.0 if row.name == BLEU.name else 1.0


def write_run_report(run: RunDir) -> Path:
    """Write report.html from what is in the run folder, whether the run has ended or not.

    The page is one file without any link to elsewhere. All text from data is escaped, and the
    page's security policy lets no script run but its own.

    Returns:
        The file written.
    """
    write_atomically(run.report, render(read_run(run)))
    return run.report


def render(content: RunContent) -> str:
    """Render the page."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The test split first, as it is the one that most readers come for.
    splits = sorted(content.scores, key=lambda split: not split.startswith("test"))
    record = {key: value for key, value in content.record.items() if key != "derived"}
    return environment.get_template("page.html.j2").render(
        name=visible(content.name),
        status=visible(str(content.record.get("status", "unknown"))),
        facts=list(_facts(content)),
        notes=content.notes,
        charts=charts(content.curves),
        largest=largest,
        splits=[_split_scores(split, content.scores[split]) for split in splits],
        examples=content.examples,
        rows_json=script_json({split: found.rows for split, found in content.examples.items()}),
        derived=[
            [_text(item.get(key, "")) for key in ("name", "value", "reason")]
            for item in _list(content.record.get("derived"))
            if isinstance(item, Mapping)
        ],
        record=[(key, value) for key, value in _flat(record) if key != "status"],
        config_text=content.config_text,
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )


def script_json(value: Any) -> Markup:
    """Write JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _facts(content: RunContent) -> Iterator[tuple[str, str]]:
    config = dict(_flat(content.config))
    for key in FACTS:
        if config.get(key) not in (None, "", "null"):
            yield key, config[key]


def _split_scores(split: str, sheets: Any) -> SplitScores:
    sheets = sheets if isinstance(sheets, Mapping) else {}
    before, after = (
        sheet if isinstance(sheet, Mapping) else None
        for sheet in (sheets.get("before"), sheets.get("after"))
    )
    rows = score_rows(before, after)
    sheet = after or before or {}
    counts = [e.count for row in rows for e in (row.after or row.before,) if e and e.count]
    errors = sheet.get("errors")
    return SplitScores(
        split=visible(split),
        rows=rows,
        num_examples=max(counts, default=None),
        fields=[
            row | {"path": visible(str(row.get("path", "")))}
            for row in _list(sheet.get("fields"))
            if isinstance(row, dict)
        ],
        errors=sorted(_counts(errors).items(), key=lambda item: (-item[1], item[0])),
        finish_reasons=_counts(sheet.get("finish_reasons")),
    )


def _counts(value: Any) -> dict[str, int]:
    items = value.items() if isinstance(value, Mapping) else ()
    return {visible(str(kind)): count for kind, count in items if isinstance(count, int) and count}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested JSON with their dotted names."""
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield visible(path), _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return visible(value, keep_lines=True)
