"""Score the predictions of a split."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jsonschema.protocols import Validator

from exp.config.schema import OutputFormat
from exp.data.output import compile_schema
from exp.metrics.bootstrap import interval, resample_sums
from exp.metrics.comparison import LeafCounts
from exp.metrics.field import f1, precision, recall
from exp.metrics.metric import row_statistics
from exp.metrics.row import ErrorKind, RowScore, match_rows, score_row
from exp.metrics.table import METRICS
from exp.records import Example, Json, Prediction, Score

OTHER_FIELDS = "(in no reference)"


@dataclass(frozen=True, slots=True)
class FieldScore:
    """The leaves of one field over all rows; `support` is how many the references have."""

    path: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class ScoreSheet:
    """All that is known of a split's predictions.

    Attributes:
        scores: One per metric, in the table's order; None where it means nothing for the task.
        fields: The per-field table, by path; empty for text.
        errors: Rows per kind of error; a row may count under several.
        primary_errors: Rows per first kind; each wrong row counts once.
        finish_reasons: Rows per finish reason.
        rows: One verdict per reference, in the references' order.
    """

    scores: dict[str, Score | None]
    fields: tuple[FieldScore, ...]
    errors: dict[str, int]
    primary_errors: dict[str, int]
    finish_reasons: dict[str, int]
    rows: tuple[RowScore, ...]

    def to_json(self) -> dict[str, Json]:
        """Everything but the rows, for scores.json: each score under its own name."""
        sheet: dict[str, Json] = {name: _score_json(score) for name, score in self.scores.items()}
        return sheet | {
            "fields": [asdict(field) for field in self.fields],
            "errors": dict(self.errors),
            "primary_errors": dict(self.primary_errors),
            "finish_reasons": dict(self.finish_reasons),
        }


def _score_json(score: Score | None) -> Json:
    if score is None:
        return None
    return {"value": score.value, "low": score.low, "high": score.high, "count": score.count}


def score_predictions(
    predictions: Sequence[Prediction],
    references: Sequence[Example],
    output_format: OutputFormat,
    schema: dict[str, Any] | None = None,
    seed: int = 0,
) -> ScoreSheet:
    """Score one prediction for each reference, paired by id.

    Args:
        predictions: In any order.
        references: The examples that the predictions were made for, with their outputs.
        output_format: The task's output format.
        schema: The task's JSON Schema, or None.
        seed: Seeds the bootstrap intervals.

    Raises:
        DataError: Ids do not pair one to one, there is no row, a reference has no output, or the
            schema is not one.
    """
    validator = None if schema is None else compile_schema(schema)
    pairs = match_rows(predictions, references)
    rows = [score_row(one, example, output_format, validator) for one, example in pairs]
    return ScoreSheet(
        scores=score_rows(rows, output_format, validator, seed),
        fields=_field_table(rows) if output_format is OutputFormat.json else (),
        errors=_count(ErrorKind, (kind for row in rows for kind in row.errors)),
        primary_errors=_count(ErrorKind, (row.errors[0] for row in rows if row.errors)),
        finish_reasons=dict(sorted(Counter(row.finish_reason for row in rows).items())),
        rows=tuple(rows),
    )


def score_rows(
    rows: Sequence[RowScore], output_format: OutputFormat, validator: Validator | None, seed: int
) -> dict[str, Score | None]:
    """Compute each metric that applies, with its 95% interval from shared resamples."""
    chosen = [
        metric
        for metric in METRICS.values()
        if metric.applies(output_format, validator is not None)
    ]
    tables = [row_statistics(metric, rows) for metric in chosen]
    edges = np.cumsum([metric.num_statistics for metric in chosen])[:-1]
    resampled = np.split(resample_sums(np.concatenate(tables, axis=1), seed), edges, axis=1)
    scores: dict[str, Score | None] = dict.fromkeys(METRICS)
    for metric, table, sums in zip(chosen, tables, resampled, strict=True):
        value = float(metric.value(table.sum(axis=0)))
        low, high = interval(metric.value(sums))
        scores[metric.name] = Score(metric.name, value, len(rows), low, high)
    return scores


def _field_table(rows: Iterable[RowScore]) -> tuple[FieldScore, ...]:
    """Add up the leaves by field; fields that no reference has share one line.

    A model that makes up keys would otherwise make the table as long as its imagination.
    """
    fields: dict[str, LeafCounts] = {}
    for row in rows:
        for path, counts in row.comparison.fields.items():
            fields.setdefault(path, LeafCounts()).add(counts)
    other = LeafCounts()
    for counts in fields.values():
        if counts.tp + counts.fn == 0:
            other.add(counts)
    known = {path: fields[path] for path in sorted(fields) if fields[path].tp + fields[path].fn}
    if other.fp:
        known[OTHER_FIELDS] = other
    return tuple(_field_score(path, counts) for path, counts in known.items())


def _field_score(path: str, counts: LeafCounts) -> FieldScore:
    sums = np.array([counts.tp, counts.fp, counts.fn], dtype=np.float64)
    return FieldScore(
        path=path,
        precision=float(precision(sums)),
        recall=float(recall(sums)),
        f1=float(f1(sums)),
        support=counts.tp + counts.fn,
        predicted=counts.tp + counts.fp,
    )


def _count(kinds: Iterable[ErrorKind], found: Iterable[ErrorKind]) -> dict[str, int]:
    counts = Counter(found)
    return {kind.value: counts[kind] for kind in kinds}
