"""Lengths of a split's rows, and its longest ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exp.data.audit.report import Spread
from exp.data.audit.rows import AuditedSplit

NUM_BARS = 24
NUM_LONGEST = 5


def edges(lengths: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the limits of the bars that the histograms of all splits share."""
    rows = [one for one in lengths if len(one)]
    low = min((int(one.min()) for one in rows), default=0)
    high = max((int(one.max()) for one in rows), default=0) + 1
    return np.linspace(low, high, min(NUM_BARS, high - low) + 1)


def spread(lengths: NDArray[np.int64], limits: NDArray[np.float64]) -> Spread | None:
    """Sum up the lengths of a split; None where it has no row."""
    if not len(lengths):
        return None
    low, median, p95, high = np.quantile(lengths, [0, 0.5, 0.95, 1]).tolist()
    counts = np.histogram(lengths, bins=limits)[0]
    return Spread(low, median, p95, high, float(lengths.mean()), tuple(counts.tolist()))


def longest(split: AuditedSplit) -> tuple[tuple[int, str, int], ...]:
    """Return the rows with most tokens: row number, id and tokens."""
    lengths = np.asarray(split.store.lengths)
    order = np.argsort(-lengths, kind="stable")[:NUM_LONGEST].tolist()
    return tuple(
        (split.number_of(one), split.store.example_ids[one], int(lengths[one])) for one in order
    )
