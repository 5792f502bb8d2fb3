"""The largest forwards of a run, found in the plan of batches that training will follow."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from exp.config.schema import Layout
from exp.data.plan import BatchPlan

SHORTEST_SHARED_PREFIX = 16
"""As in `data/batch.py`, which imports torch; a test compares them."""

MOST_STEPS = 4000
"""Steps that are looked at. Of a longer run so many are taken at even distances, and besides them
the longest examples as if they met in one step, which no step can exceed."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward, as far as its memory depends on it.

    Attributes:
        tokens: That every linear layer computes, padding included.
        prefix: Of them, the ones that all rows share; 0 without.
        rows: Examples.
        longest: Tokens of the longest row, behind the prefix.
        labels: Rows of logits: supervised tokens, those of a shared prefix once.
        padded: Whether examples are rows of their own, and not one stream.
        ragged: Whether some of those rows are padded.
    """

    tokens: int
    prefix: int
    rows: int
    longest: int
    labels: int
    padded: bool = False
    ragged: bool = True

    @property
    def pairs(self) -> int:
        """Pairs of a new token and a token it may see, behind the prefix, padding included."""
        return self.rows * self.longest * (self.prefix + self.longest)


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward, and which examples it is made of.

    Attributes:
        batch: Its measures.
        step: Number of its step; None for one that no step has.
        members: Rows of the training split; empty for one that no step has.
        alone: Whether its step has no other forward.
    """

    batch: MicroBatch
    step: int | None
    members: tuple[int, ...]
    alone: bool


def measure(plan: BatchPlan, members: tuple[int, ...]) -> MicroBatch:
    """Measure a forward over some rows of the training split, as `data/batch.py` lays it out."""
    rows = list(members)
    lengths = plan.lengths[rows]
    longest, labels = int(lengths.max()), int(plan.num_labels[rows].sum())
    if plan.layout is Layout.padded:
        ragged = int(lengths.min()) < longest
        return MicroBatch(longest * len(rows), 0, len(rows), longest, labels, True, ragged)
    prefix = plan.shared_tokens if plan.layout is Layout.shared_prefix and len(rows) > 1 else 0
    prefix = prefix if prefix >= SHORTEST_SHARED_PREFIX else 0
    tokens = int(lengths.sum()) - prefix * (len(rows) - 1)
    # More labels than tokens behind the prefix: the others are the prefix's own.
    inside = int((plan.num_labels[rows] - (lengths - prefix)).min())
    labels -= max(0, inside) * (len(rows) - 1)
    return MicroBatch(tokens, prefix, len(rows), longest - prefix, labels)


def largest_forwards(plan: BatchPlan) -> list[Forward]:
    """The forwards that no other one of the run exceeds in tokens, pairs and labels alike."""
    found: dict[tuple[MicroBatch, bool], Forward] = {}
    for forward in _forwards(plan):
        found.setdefault((forward.batch, forward.alone), forward)
    ordered = sorted(found.values(), key=lambda forward: -forward.batch.tokens)
    kept: list[Forward] = []
    for forward in ordered:
        if not any(_exceeds(other, forward) for other in kept):
            kept.append(forward)
    return kept


def _exceeds(other: Forward, forward: Forward) -> bool:
    large, small = other.batch, forward.batch
    return (
        large.tokens >= small.tokens
        and large.pairs >= small.pairs
        and large.labels >= small.labels
        and large.prefix >= small.prefix
        and (forward.alone or not other.alone)
    )


def _forwards(plan: BatchPlan) -> Iterator[Forward]:
    every = -(-plan.num_steps // MOST_STEPS)
    # A rank takes every so-manieth example of a step in order of length: the last has the longest.
    for rank in {0, plan.world_size - 1}:
        own = replace(plan, rank=rank)
        for number in range(0, plan.num_steps, every):
            yield from _step_forwards(plan, own.step(number).micro_batches, number)
    if every > 1:
        yield from _bound(plan)


def _step_forwards(
    plan: BatchPlan, micro_batches: tuple[tuple[int, ...], ...], step: int | None
) -> Iterator[Forward]:
    alone = len(micro_batches) == 1
    for members in micro_batches:
        known = members if step is not None else ()
        yield Forward(measure(plan, members), step, known, alone)


def _bound(plan: BatchPlan) -> Iterator[Forward]:
    """The longest examples and the most labels in one step."""
    size = -(-plan.batch_size // plan.world_size)
    together = replace(
        plan,
        lengths=np.sort(plan.lengths)[-size:],
        num_labels=np.sort(plan.num_labels)[-size:],
        batch_size=size,
        epochs=1.0,
        max_steps=1,
        world_size=1,
        rank=0,
        draws=None,
        curriculum=None,
    )
    yield from _step_forwards(together, together.step(0).micro_batches, None)
