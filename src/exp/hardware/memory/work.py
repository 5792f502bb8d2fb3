"""Floating-point operations of an epoch, and the time that they take at a share of the peak.

Counted as in `training/benchmark/flops.py`: per token 4N for the frozen linear layers and 6n for
the adapter, 12 per visible pair and attention width, 4H per label row of the head. Checkpointing
computes the layers' forward again: 2N + 2n per token, 4 per pair.
"""

from dataclasses import dataclass

from exp.data.plan import BatchPlan
from exp.hardware.memory.micro_batch import MOST_STEPS, measure
from exp.hardware.memory.phases import Request


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the data computes.

    Attributes:
        steps: Optimizer steps.
        forwards: Micro-batches, over all devices.
        tokens: That linear layers compute.
        pairs: Pairs of tokens of which one sees the other.
        labels: Rows of logits.
    """

    steps: int
    forwards: float
    tokens: float
    pairs: float
    labels: float


def first_epoch(plan: BatchPlan) -> Epoch:
    """Count the first epoch; of a long one a sample of its steps, scaled up."""
    every = -(-plan.steps_per_epoch // MOST_STEPS)
    numbers = range(0, min(plan.steps_per_epoch, max(1, plan.num_steps)), every)
    forwards = tokens = pairs = labels = 0
    for number in numbers:
        for members in plan.step(number).micro_batches:
            batch = measure(plan, members)
            own = plan.lengths[list(members)] - batch.prefix
            forwards += 1
            tokens += batch.tokens
            pairs += batch.prefix * (batch.prefix + 1) // 2
            pairs += int((own * batch.prefix + own * (own + 1) // 2).sum())
            labels += batch.labels
    scale = plan.steps_per_epoch / len(numbers) * plan.world_size
    return Epoch(
        plan.steps_per_epoch, forwards * scale, tokens * scale, pairs * scale, labels * scale
    )


def epoch_flops(request: Request, epoch: Epoch, *, checkpointing: bool) -> float:
    """Operations of an epoch, over all devices."""
    sizes = request.sizes
    width = sizes.layers * sizes.queries
    frozen, adapter = sizes.linear_weights, request.adapter
    again = int(checkpointing)
    return (
        ((4 + 2 * again) * frozen + (6 + 2 * again) * adapter) * epoch.tokens
        + (12 + 4 * again) * width * epoch.pairs
        + 4 * sizes.embedding * epoch.labels
    )


def seconds(flops: float, peak_tflops: float, share: float, devices: int) -> float:
    """Time of so many operations at a share of the devices' peak."""
    return flops / (peak_tflops * 1e12 * share * devices)
