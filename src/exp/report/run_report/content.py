"""Everything the report shows, read from the run folder; what is missing or broken is noted."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exp.redaction import Redactor, current_redactor
from exp.report.visible import shorten, visible
from exp.rundir import RunDir
from exp.training.metrics_log import read_metrics, series

# More rows than this make the file slow to open; the report says how many it leaves out.
MAX_ROWS = 20_000
MAX_TEXT_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Examples:
    """The predictions of one split, with those of the base model where there are any."""

    rows: list[dict[str, Any]]
    num_rows: int


@dataclass(frozen=True, slots=True)
class RunContent:
    """A run folder in memory, redacted. Missing files leave empty values and a note."""

    name: str
    record: dict[str, Any]
    config: dict[str, Any]
    config_text: str
    curves: dict[str, list[tuple[int, float]]]
    scores: dict[str, dict[str, Any]]
    examples: dict[str, Examples]
    notes: list[str] = field(default_factory=list)


def read_run(run: RunDir) -> RunContent:
    """Read a run folder. Never fails on what is in it: an interrupted run has a report too."""
    redactor = current_redactor()
    notes: list[str] = []
    config_text = redactor.redact(_read_text(run.config, notes))
    return RunContent(
        name=run.name,
        record=redactor.redact_json(_parsed(run.record, json.loads, notes)),
        config=redactor.redact_json(_parsed(run.config, yaml.safe_load, [])),
        config_text=visible(config_text, keep_lines=True),
        curves=_read_curves(run.metrics, notes),
        scores=redactor.redact_json(_parsed(run.scores, json.loads, notes)),
        examples=_read_examples(run, redactor, notes),
        notes=notes,
    )


def _read_text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        notes.append(f"{path.name} is not there.")
        return ""


def _parsed(path: Path, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    text = _read_text(path, notes)
    if not text:
        return {}
    try:
        value = parse(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        notes.append(f"{path.name} cannot be read: {visible(str(error))}")
        return {}
    return value if isinstance(value, dict) else {}


def _read_curves(path: Path, notes: list[str]) -> dict[str, list[tuple[int, float]]]:
    if not path.is_file():
        notes.append(f"{path.name} is not there.")
    return series(read_metrics(path))


def _read_examples(run: RunDir, redactor: Redactor, notes: list[str]) -> dict[str, Examples]:
    found = run.predictions("any").parent.glob("*.jsonl")
    # The test split first, as it is the one that most readers come for.
    ordered = sorted(found, key=lambda path: (not path.stem.startswith("test"), path.stem))
    paths = {path.stem: path for path in ordered}
    if not paths:
        notes.append("There are no predictions.")
    examples = {}
    for split, path in paths.items():
        main = split.removesuffix("_before")
        if split != main and main in paths:
            continue
        rows, num_rows = _read_rows(path, redactor, notes)
        base = run.predictions(split, "before")
        before = _read_rows(base, redactor, notes)[0] if base.is_file() else []
        texts = {row["id"]: row["prediction"] for row in before}
        for row in rows:
            row["before"] = texts.get(row["id"])
        examples[split] = Examples(rows, num_rows)
    return examples


def _read_rows(
    path: Path, redactor: Redactor, notes: list[str]
) -> tuple[list[dict[str, Any]], int]:
    """Read the first rows of a file of predictions, and count all of them."""
    rows: list[dict[str, Any]] = []
    num_rows = broken = 0
    # newline: JSON strings may hold other characters that count as line ends.
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            if not line.strip():
                continue
            num_rows += 1
            if len(rows) == MAX_ROWS:
                continue
            try:
                rows.append(_row(json.loads(line), redactor))
            except (ValueError, RecursionError, TypeError, AttributeError):
                broken += 1
    if broken:
        notes.append(f"{path.parent.name}/{path.name}: {broken} line(s) could not be read.")
    return rows, num_rows - broken


def _row(row: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    def text(value: Any) -> str:
        if not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False)
        return shorten(visible(redactor.redact(value), keep_lines=True), MAX_TEXT_CHARS)

    return {
        "id": text(row.get("id", "")),
        "input": text(row.get("input", "")),
        "reference": text(row.get("reference", "")),
        "prediction": text(row.get("prediction", "")),
        "errors": [text(kind) for kind in row.get("errors") or []],
        "exact": bool(row.get("exact")),
        "finish_reason": text(row.get("finish_reason", "")),
        "num_tokens": row["num_tokens"] if isinstance(row.get("num_tokens"), int) else None,
    }
