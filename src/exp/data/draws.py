"""Which examples an epoch is made of, where it is not every one of them once.

Weights of training files and a balance between values both come to the same: groups of examples,
and how many of each group an epoch takes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exp.errors import ConfigError


@dataclass(frozen=True)
class Draws:
    """How many examples of each group an epoch takes, and which ones: a pure function.

    The examples of a group stand in one seeded order, as on a ring, and each epoch takes the next
    ones. So within an epoch the examples of a group come equally often up to one, and over the
    epochs all have their turn before any comes again.

    Attributes:
        groups: (examples,) the group of each example, from 0.
        quotas: (groups,) examples that an epoch takes of each group.
        seed: Decides the orders.
    """

    groups: NDArray[np.int64]
    quotas: NDArray[np.int64]
    seed: int

    @property
    def size(self) -> int:
        """Examples of an epoch."""
        return int(self.quotas.sum())

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return the (size,) examples of an epoch, some maybe several times, group by group."""
        order, starts, sizes = self._rings
        group = np.repeat(np.arange(len(self.quotas)), self.quotas)
        first = np.cumsum(self.quotas) - self.quotas
        turn = np.arange(self.size) - first[group] + number * self.quotas[group]
        return order[starts[group] + turn % sizes[group]]

    @cached_property
    def _rings(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All examples group by group, and where each group begins, and how many it has."""
        shuffled = np.random.default_rng([self.seed, len(self.groups), 1]).permutation(
            len(self.groups)
        )
        order = shuffled[np.argsort(self.groups[shuffled], kind="stable")]
        sizes = np.bincount(self.groups, minlength=len(self.quotas))
        return order, np.cumsum(sizes) - sizes, sizes


def draw_by_weight(
    sources: NDArray[np.int16],
    weights: tuple[float, ...] | None,
    values: NDArray[np.int64] | None,
    max_repeat: int,
    seed: int,
) -> Draws:
    """Divide an epoch among files, and within each file among values.

    An epoch keeps its number of examples. Weights are kept exactly, however often the examples of a
    small file come then; balance stops at `max_repeat`, and what a rare value cannot take goes to
    the others.

    Args:
        sources: (examples,) the file of each example.
        weights: The share of each file; None leaves files as large as they are.
        values: (examples,) the value of each example; None balances nothing.
        max_repeat: How often balance may repeat an example, as a multiple of how often it comes
            without.
        seed: Decides which examples come in which epoch.

    Raises:
        ConfigError: A file with a weight has no examples left.
    """
    num_sources = int(sources.max()) + 1 if weights is None else len(weights)
    rows = np.bincount(sources, minlength=num_sources)
    if weights is not None and not rows.all():
        empty = int(np.flatnonzero(rows == 0)[0])
        raise ConfigError(
            f"File {empty + 1} of task.train has a weight, but none of its rows is used.",
            where=f"task.train_weights={list(weights)}",
            fix="a larger data.limit or data.fraction, or leave the file out of task.train",
        )
    of_source = share_out(len(sources), rows if weights is None else np.asarray(weights))
    if values is None:
        return Draws(sources.astype(np.int64), of_source, seed)
    # One group for each value that a file has.
    pairs, groups = np.unique(
        sources.astype(np.int64) * (int(values.max()) + 1) + values, return_inverse=True
    )
    sizes = np.bincount(groups)
    source_of = pairs // (int(values.max()) + 1)
    quotas = np.zeros(len(pairs), dtype=np.int64)
    for source in np.unique(source_of):
        own = source_of == source
        total = int(of_source[source])
        most = max_repeat * sizes[own] * total / rows[source]
        quotas[own] = share_out(total, fill_evenly(total, most))
    return Draws(groups.astype(np.int64), quotas, seed)


def fill_evenly(total: int, most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share a total equally among groups of which none takes more than its `most`.

    Args:
        total: At the most the sum of `most`.
        most: (groups,) upper limits.
    """
    ascending = np.sort(most)
    left = total - (np.cumsum(ascending) - ascending)
    levels = left / np.arange(len(most), 0, -1)
    # The first group that is not filled by an equal share of what the smaller ones leave.
    unfilled = np.flatnonzero(levels <= ascending)
    level = levels[unfilled[0]] if len(unfilled) else ascending[-1]
    return np.minimum(most, level)


def share_out(total: int, weights: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Share a whole number in proportion to weights, rounded by the largest remainders."""
    exact = total * weights / weights.sum()
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")
    shares[order[: total - int(shares.sum())]] += 1
    return shares
