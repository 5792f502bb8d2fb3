"""What a metric is: numbers per row that add up over rows, and the score that their sums give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import OutputFormat
from exp.metrics.row import RowScore

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """A score over rows.

    Because only sums enter, the same two functions give the score of a corpus, that of each
    bootstrap resample, and that of rows spread over processes.

    Args:
        name: The word in configs, logs and scores.json.
        formats: The output formats for which it means something.
        num_statistics: How many numbers a row has.
        statistics: Gives those numbers of one row.
        value: Turns sums over rows, shape (..., num_statistics), into scores, shape (...).
        needs_schema: Only for tasks with a JSON Schema.
    """

    name: str
    formats: frozenset[OutputFormat]
    num_statistics: int
    statistics: Callable[[RowScore], Sequence[float]]
    value: Callable[[Numbers], Numbers]
    needs_schema: bool = False

    def applies(self, output_format: OutputFormat, has_schema: bool) -> bool:
        return output_format in self.formats and (has_schema or not self.needs_schema)


JSON = frozenset({OutputFormat.json})
TEXT = frozenset({OutputFormat.text})


def row_statistics(metric: Metric, rows: Sequence[RowScore]) -> Numbers:
    """Collect the numbers of all rows, shape (rows, num_statistics)."""
    table = np.array([metric.statistics(row) for row in rows], dtype=np.float64)
    return table.reshape(len(rows), metric.num_statistics)


def ratio(numerator: Numbers, denominator: Numbers) -> Numbers:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def rate(name: str, claim: Callable[[RowScore], bool], formats: frozenset[OutputFormat]) -> Metric:
    """Make the metric that is the share of rows of which `claim` holds."""
    return Metric(name, formats, 2, lambda row: (claim(row), 1), _share)


def _share(sums: Numbers) -> Numbers:
    return ratio(sums[..., 0], sums[..., 1])
