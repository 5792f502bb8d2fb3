"""Which examples form which micro-batch of which step: a pure function, decided before training.

Nothing else decides the order. A resumed run needs only the number of its next step, and neither
the number of workers nor the micro-batch budget changes which examples meet in a step.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import Layout, LossOn
from exp.data.curriculum import Curriculum
from exp.data.draws import Draws
from exp.errors import ConfigError

WINDOW_STEPS = 32
"""Examples are sorted by length within windows of so many steps: examples of like length meet, yet
which ones meet differs from epoch to epoch."""

PACED_WINDOWS = 16
"""Windows of an epoch at the least while a curriculum paces it, so that its pace shows."""


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
        draws: Which examples an epoch is made of; None for every one of them once.
        curriculum: Brings easy examples first; None for an order that knows no difficulty.
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
    draws: Draws | None = None
    curriculum: Curriculum | None = None
    # Not given on: a plan that was changed by dataclasses.replace may have other orders.
    _orders: dict[int, list[NDArray[np.int64]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            raise ConfigError(
                "The training split has no rows.", where="task.train", fix="give it some"
            )

    @property
    def examples_per_epoch(self) -> int:
        return len(self.lengths) if self.draws is None else self.draws.size

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples_per_epoch // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        by_epochs = max(1, round(self.epochs * self.steps_per_epoch))
        return by_epochs if self.max_steps is None else min(by_epochs, self.max_steps)

    def times(self, factor: int) -> "BatchPlan":
        """Plan `factor` examples in the place of each one.

        Example n becomes the examples n * factor to n * factor + factor - 1, which are as long, as
        difficult and as often drawn as it was.
        """
        draws, curriculum = self.draws, self.curriculum
        if draws is not None:
            draws = replace(
                draws, groups=np.repeat(draws.groups, factor), quotas=draws.quotas * factor
            )
        if curriculum is not None:
            curriculum = replace(curriculum, difficulty=np.repeat(curriculum.difficulty, factor))
        return replace(
            self,
            lengths=np.repeat(self.lengths, factor),
            num_labels=np.repeat(self.num_labels, factor),
            draws=draws,
            curriculum=curriculum,
        )

    def step(self, number: int) -> Step:
        """Work out one step."""
        epoch, within = divmod(number, self.steps_per_epoch)
        members = self._epoch_batches(epoch)[within]
        own = members[self.rank :: self.world_size]
        return Step(
            number=number,
            epoch=epoch,
            micro_batches=self.cut(own, self.lengths[own]),
            num_labels=int(self.num_labels[members].sum()),
            num_examples=len(members),
        )

    def cut(
        self, members: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[tuple[int, ...], ...]:
        """Cut a rank's examples, in order of length, into forwards within the budget.

        Args:
            members: The examples, by number.
            lengths: Tokens of each.
        """
        micro_batches: list[list[int]] = []
        longest = total = 0
        for row, length in zip(members.tolist(), lengths.tolist(), strict=True):
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

    def members(self, epoch: int) -> NDArray[np.int64]:
        """Return the examples of an epoch in no order that means anything."""
        return np.arange(len(self.lengths)) if self.draws is None else self.draws.epoch(epoch)

    def _order_epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        members = self.members(epoch)
        if self.curriculum is not None and self.curriculum.available(self._progress(epoch, 0)) < 1:
            return self._paced(self.curriculum, members, epoch, random)
        order = members[random.permutation(len(members))]
        window = WINDOW_STEPS * self.batch_size
        windows = (order[start : start + window] for start in range(0, len(order), window))
        batches = [batch for part in windows for batch in self._alike(part)]
        return [batches[index] for index in random.permutation(len(batches))]

    def _paced(
        self,
        curriculum: Curriculum,
        members: NDArray[np.int64],
        epoch: int,
        random: np.random.Generator,
    ) -> list[NDArray[np.int64]]:
        """Order an epoch by difficulty; batches change places within their window alone."""
        steps = max(1, min(WINDOW_STEPS, self.steps_per_epoch // PACED_WINDOWS))
        windows = curriculum.windows(
            members, steps * self.batch_size, lambda done: self._progress(epoch, done), random
        )
        batches: list[NDArray[np.int64]] = []
        for part in windows:
            alike = self._alike(part)
            batches.extend(alike[index] for index in random.permutation(len(alike)))
        return batches

    def _progress(self, epoch: int, num_done: int) -> float:
        """Return the share of the run that is done before an example of an epoch."""
        return (epoch * self.steps_per_epoch + num_done // self.batch_size) / self.num_steps

    def _alike(self, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut examples into batches of like length."""
        members = members[np.argsort(self.lengths[members], kind="stable")]
        starts = range(0, len(members), self.batch_size)
        return [members[start : start + self.batch_size] for start in starts]


def count_labels(
    lengths: NDArray[np.int64], completion_lengths: NDArray[np.int64], loss: LossOn
) -> NDArray[np.int64]:
    """Count the supervised tokens of each example: all but the first, or the completion's."""
    return lengths - 1 if loss is LossOn.text else completion_lengths
