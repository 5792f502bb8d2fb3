"""How far a score may move with other rows of the same kind.

Source:
    Efron 1979, Bootstrap methods, percentile interval. https://doi.org/10.1214/aos/1176344552
"""

from collections.abc import Iterator

import numpy as np

from exp.metrics.metric import Numbers

NUM_RESAMPLES = 1000
# 8 MB of weights at a time, however many rows there are.
_MAX_WEIGHTS = 1_000_000


def resample_sums(statistics: Numbers, seed: int, num_resamples: int = NUM_RESAMPLES) -> Numbers:
    """Sum the rows' numbers over resamples of the rows, drawn with replacement.

    All columns are drawn together: scores of one resample belong to the same rows.

    Args:
        statistics: Shape (rows, columns).
        seed: The resamples follow from it and the number of rows.
        num_resamples: How many resamples to draw.

    Returns:
        Shape (num_resamples, columns).
    """
    rng = np.random.default_rng(seed)
    num_rows = len(statistics)
    batches = _batches(num_resamples, max(1, _MAX_WEIGHTS // num_rows))
    return np.concatenate([_weights(rng, size, num_rows) @ statistics for size in batches])


def _batches(total: int, largest: int) -> Iterator[int]:
    for start in range(0, total, largest):
        yield min(largest, total - start)


def _weights(rng: np.random.Generator, size: int, num_rows: int) -> Numbers:
    """Draw how often each row comes, shape (size, num_rows)."""
    drawn = rng.integers(num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * num_rows)
    return counts.reshape(size, num_rows).astype(np.float64)


def interval(values: Numbers) -> tuple[float, float]:
    """The middle 95% of the values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
