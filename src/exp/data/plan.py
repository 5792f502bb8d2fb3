"""Which examples form which micro-batch of which step: a pure function, decided before training.

Nothing else decides the order. A resumed run needs only the number of its next step, and neither
the number of workers nor the micro-batch budget changes which examples meet in a step.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import Layout, LossOn
from exp.errors import ConfigError

WINDOW_STEPS = 32
"""Examples are sorted by length within windows of so many steps: examples of like length meet, yet
which ones meet differs from epoch to epoch."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step as row numbers of the training split.

    Attributes:
        number: Counted from 0 over the whole run.
        epoch: Which pass over the data, from 0.
        micro_batches: What this rank computes, one forward each.
        num_labels: Supervised tokens of the whole step, over all micro-batches and ranks; the loss
            is divided by it.
        num_examples: Examples of the whole step, over all ranks.
    """

    number: int
    epoch: int
    micro_batches: tuple[tuple[int, ...], ...]
    num_labels: int
    num_examples: int


@dataclass(frozen=True)
class BatchPlan:
    """The order of a run: `step(number)` for every number from 0 to `num_steps` - 1.

    Attributes:
        lengths: (examples,) tokens of prompt and completion.
        num_labels: (examples,) supervised tokens.
        shared_tokens: Tokens that all prompts begin with.
        batch_size: Examples per step, over all ranks.
        micro_batch_tokens: Tokens of a forward at the most, as the layout counts them; an example
            longer than that gets a forward of its own.
        micro_batch_size: Examples of a forward at the most; None for no limit.
        epochs: Passes over the data, maybe a fraction.
        max_steps: The run ends here even if epochs are left; None for no limit.
        rank: Which process this is, of `world_size`.
    """

    lengths: NDArray[np.int64]
    num_labels: NDArray[np.int64]
    shared_tokens: int
    layout: Layout
    batch_size: int
    micro_batch_tokens: int
    micro_batch_size: int | None
    epochs: float
    max_steps: int | None
    seed: int
    rank: int = 0
    world_size: int = 1
    _orders: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            raise ConfigError(
                "The training split has no rows.", where="task.train", fix="give it some"
            )

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        by_epochs = max(1, round(self.epochs * self.steps_per_epoch))
        return by_epochs if self.max_steps is None else min(by_epochs, self.max_steps)

    def step(self, number: int) -> Step:
        """Work out one step."""
        epoch, within = divmod(number, self.steps_per_epoch)
        members = self._epoch_batches(epoch)[within]
        return Step(
            number=number,
            epoch=epoch,
            micro_batches=self._cut(members[self.rank :: self.world_size]),
            num_labels=int(self.num_labels[members].sum()),
            num_examples=len(members),
        )

    def _cut(self, members: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
        """Cut a rank's examples, in order of length, into forwards within the budget."""
        micro_batches: list[list[int]] = []
        longest = total = 0
        for row, length in zip(members.tolist(), self.lengths[members].tolist(), strict=True):
            longest, total = max(longest, length), total + length
            size = len(micro_batches[-1]) + 1 if micro_batches else 1
            fits = size <= (self.micro_batch_size or size) and (
                self.forward_tokens(size, longest, total) <= self.micro_batch_tokens
            )
            if micro_batches and fits:
                micro_batches[-1].append(row)
            else:
                micro_batches.append([row])
                longest = total = length
        return tuple(map(tuple, micro_batches))

    def forward_tokens(self, size: int, longest: int, total: int) -> int:
        """Count what one forward computes, padding included.

        Args:
            size: Examples of the forward.
            longest: Tokens of its longest example.
            total: Tokens of all its examples.
        """
        if self.layout is Layout.padded:
            return longest * size
        shared = self.shared_tokens if self.layout is Layout.shared_prefix else 0
        return total - shared * (size - 1)

    def _epoch_batches(self, epoch: int) -> list[NDArray[np.int64]]:
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = self._order_epoch(epoch)
        return self._orders[epoch]

    def _order_epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        window = WINDOW_STEPS * self.batch_size
        for start in range(0, len(order), window):
            part = order[start : start + window]
            order[start : start + window] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = [
            order[start : start + self.batch_size]
            for start in range(0, len(order), self.batch_size)
        ]
        return [batches[index] for index in random.permutation(len(batches))]


def count_labels(
    lengths: NDArray[np.int64], completion_lengths: NDArray[np.int64], loss: LossOn
) -> NDArray[np.int64]:
    """Count the supervised tokens of each example: all but the first, or the completion's."""
    return lengths - 1 if loss is LossOn.text else completion_lengths
