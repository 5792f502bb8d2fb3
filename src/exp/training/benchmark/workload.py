"""The examples that every rung computes, and the plan that cuts them into the same steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exp.config.schema import Layout
from exp.data.plan import BatchPlan, Step
from exp.data.tokens import TokenStore
from exp.records import Rendered


@dataclass(frozen=True)
class LadderPlan(BatchPlan):
    """Step n takes the next `batch_size` examples in their order, whatever the rung.

    A real run sorts by length over many steps; here only within a step, so that all rungs take
    the same steps and have to reach the same losses. Gains by sorting are therefore understated.

    Attributes:
        length_aware: Sort the examples of a step by length before they are cut into micro-batches.
    """

    length_aware: bool = True

    def step(self, number: int) -> Step:
        """Work out one step."""
        members = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        if self.length_aware:
            members = members[np.argsort(self.lengths[members], kind="stable")]
        size = self.micro_batch_size or self.batch_size
        micro_batches = tuple(
            tuple(members[start : start + size].tolist()) for start in range(0, len(members), size)
        )
        num_labels = int(self.num_labels[members].sum())
        return Step(number, 0, micro_batches, num_labels, len(members))


def ladder_plan(
    store: TokenStore, batch_size: int, micro_batch_size: int, layout: Layout, length_aware: bool
) -> LadderPlan:
    """Plan one pass over all examples of the store, whose number is a multiple of `batch_size`."""
    return LadderPlan(
        lengths=store.lengths,
        num_labels=store.completion_lengths,
        shared_tokens=len(store.head_ids),
        layout=layout,
        batch_size=batch_size,
        micro_batch_tokens=int(store.lengths.max()) * micro_batch_size,
        micro_batch_size=micro_batch_size,
        epochs=1.0,
        max_steps=None,
        seed=0,
        length_aware=length_aware,
    )


def sample_rows(store: TokenStore, rows: Sequence[int], num_examples: int, seed: int) -> TokenStore:
    """Take examples from a split in a seeded order, again from the start where it is too small."""
    order = np.random.default_rng([seed, len(rows)]).permutation(np.asarray(rows))
    return in_memory([store[int(row)] for row in np.resize(order, num_examples)], store.head_ids)


def synthetic_rows(
    num_examples: int,
    prompt_tokens: int,
    input_tokens: int,
    completion_tokens: int,
    vocab_size: int,
    seed: int,
) -> TokenStore:
    """Make random token ids: a shared instruction, then inputs and completions of ragged length.

    Args:
        num_examples: How many.
        prompt_tokens: Tokens of the instruction.
        input_tokens: Mean tokens of an input; single ones are even from half to one and a half.
        completion_tokens: Mean tokens of a completion, spread alike.
        vocab_size: Ids are below it.
        seed: All random numbers follow from it.
    """
    random = np.random.default_rng(seed)

    def ids(mean: int) -> tuple[int, ...]:
        size = random.integers((mean + 1) // 2, mean + mean // 2 + 1)
        return tuple(random.integers(vocab_size, size=size).tolist())

    head = tuple(random.integers(vocab_size, size=prompt_tokens).tolist())
    rendered = [
        Rendered((*head, *ids(input_tokens)), ids(completion_tokens)) for _ in range(num_examples)
    ]
    return in_memory(rendered, head)


def in_memory(rendered: Sequence[Rendered], head_ids: tuple[int, ...]) -> TokenStore:
    """Hold a few rendered examples as a TokenStore that does not depend on any file."""
    flat: list[int] = []
    prompt_starts, completion_starts = [0], []
    for row in rendered:
        flat.extend(row.prompt_ids[len(head_ids) :])
        completion_starts.append(len(flat))
        flat.extend(row.completion_ids)
        prompt_starts.append(len(flat))
    return TokenStore(
        head_ids=head_ids,
        ids=np.asarray(flat, dtype=np.int32),
        prompt_starts=np.asarray(prompt_starts, dtype=np.int64),
        completion_starts=np.asarray(completion_starts, dtype=np.int64),
        example_ids=[f"row-{index}" for index in range(len(rendered))],
    )
