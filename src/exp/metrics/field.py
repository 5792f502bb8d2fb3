"""Precision, recall and F1 over the leaves of nested JSON.

Micro-averaged: the counts of all rows are added up before dividing, so a row weighs as much as its
leaves. A prediction from which nothing can be read adds its reference's leaves to the missed ones.
"""

from exp.metrics.metric import JSON, Metric, Numbers, ratio
from exp.metrics.row import RowScore


def _counts(row: RowScore) -> tuple[int, int, int]:
    total = row.comparison.total
    return total.tp, total.fp, total.fn


def precision(sums: Numbers) -> Numbers:
    """Share of the predicted leaves that are right, from (tp, fp, fn); 0 where none is."""
    return ratio(sums[..., 0], sums[..., 0] + sums[..., 1])


def recall(sums: Numbers) -> Numbers:
    """Share of the reference's leaves that are predicted, from (tp, fp, fn)."""
    return ratio(sums[..., 0], sums[..., 0] + sums[..., 2])


def f1(sums: Numbers) -> Numbers:
    """Harmonic mean of precision and recall, from (tp, fp, fn)."""
    return ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


FIELD_F1 = Metric("field_f1", JSON, 3, _counts, f1)
FIELD_PRECISION = Metric("field_precision", JSON, 3, _counts, precision)
FIELD_RECALL = Metric("field_recall", JSON, 3, _counts, recall)
