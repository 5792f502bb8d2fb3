"""A step that does not fit into memory is computed again, in micro-batches of half the size.

Nothing of the failed attempt is kept, and the cut of a step into micro-batches does not change its
gradient, so training goes on as if the smaller micro-batches had been planned from that step on.
"""

import gc
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NoReturn

import torch

from exp.config.schema import TrainConfig
from exp.data.datamodule import StepBatches
from exp.data.plan import Step
from exp.errors import HardwareError
from exp.model.fused_lora import forget_inputs
from exp.training.advice import advise_out_of_memory

MESSAGES = (
    "defaultcpuallocator",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""What torch and the libraries below it say, in lower case, where they raise a plain RuntimeError:
the CPU's allocator, CUDA calls outside of torch's own allocator, and cuBLAS and cuDNN for want of a
workspace."""


class Severity(IntEnum):
    """How an attempt at a step ended; of several processes the worst one counts."""

    fits = 0
    splittable = 1
    hopeless = 2


@dataclass(frozen=True, slots=True)
class Shortage:
    """Where memory ran out. Holds no reference to the exception, whose frames hold tensors.

    Attributes:
        example_ids: The micro-batch's examples.
        num_tokens: Tokens of its forward, padding included.
        message: First line of what the allocator said.
    """

    example_ids: tuple[str, ...]
    num_tokens: int
    message: str

    @property
    def severity(self) -> Severity:
        return Severity.splittable if len(self.example_ids) > 1 else Severity.hopeless


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an allocation that failed from every other error."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(message in words for message in MESSAGES)


def shortage_at(batch: StepBatches, index: int, error: BaseException) -> Shortage:
    """Keep of an error what is needed once it is gone."""
    micro_batch = batch.batches[index]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return Shortage(micro_batch.example_ids, micro_batch.input_ids.numel(), lines[0])


def halved(step: Step, times: int = 1) -> Step:
    """Cut every micro-batch of a step in two, `times` over; single examples stay as they are."""
    parts = list(step.micro_batches)
    for _ in range(times):
        halves = [(part[: -(-len(part) // 2)], part[-(-len(part) // 2) :]) for part in parts]
        parts = [half for pair in halves for half in pair if half]
    return replace(step, micro_batches=tuple(parts))


def free_memory(model: torch.nn.Module) -> None:
    """Give back what the failed attempt left; its frames are gone, its cycles may not be."""
    forget_inputs(model)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe_recovery(step: Step, shortage: Shortage | None) -> str:
    """Say what happened, and how a run would begin with the smaller micro-batches.

    Args:
        step: The step as it is now cut.
        shortage: None where another process ran out of memory.
    """
    why = "in another process" if shortage is None else shortage.message.rstrip(".")
    largest = max(map(len, step.micro_batches), default=0)
    return (
        f"step {step.number + 1} did not fit into memory ({why}). It is computed again, like all "
        f"that follow, in micro-batches of half the size, here {largest} examples at the most; its "
        f"gradient stays the same. To begin so: training.micro_batch_size={max(1, largest)}"
    )


def refuse_step(step: Step, shortage: Shortage | None, config: TrainConfig) -> NoReturn:
    """Give up where a single example does not fit.

    Args:
        step: The step that was not finished.
        shortage: What this process ran out of; None, or still splittable, where it was another.
        config: What the run was asked to do.

    Raises:
        HardwareError: Always; it names the example, and what to try in order.
    """
    which, said, num_tokens = "a single example of another process", "", None
    if shortage is not None and shortage.severity is Severity.hopeless:
        num_tokens = shortage.num_tokens
        which = f"example {shortage.example_ids[0]} alone, {num_tokens} tokens,"
        said = f" ({shortage.message.rstrip('.')})"
    # By now the micro-batches are single examples, whatever size was asked for.
    cut = replace(config, training=replace(config.training, micro_batch_size=1))
    # A profile that was found, not chosen, has no word in the config; nf4 goes everywhere.
    kind = config.hardware.quantize_to or "nf4"
    advice = advise_out_of_memory(cut, quantize_to=kind, num_tokens=num_tokens)
    raise HardwareError(
        f"Step {step.number + 1}: {which} does not fit into memory{said}.",
        where=f"hardware={config.hardware.name}",
        fix=", or ".join(one.typed for one in advice) or "model=<a smaller one>",
    )
