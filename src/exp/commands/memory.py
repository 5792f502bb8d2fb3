"""The memory plan of a run: what it needs on a card, and which settings make it fit."""

from dataclasses import dataclass

from exp.commands.lengths import Lengths
from exp.config.schema import Layout, Precision, TrainConfig
from exp.data.plan import BatchPlan, count_labels
from exp.generation.settings import CPU_SLOTS, GPU_SLOTS, LONGER_THAN_TRAINING, SPARE_TOKENS
from exp.hardware.memory.card import Card
from exp.hardware.memory.choice import Choice, Wanted, choose, with_tokens
from exp.hardware.memory.phases import Request
from exp.hardware.memory.sizes import read_sizes
from exp.hardware.memory.work import Epoch, epoch_flops, first_epoch, seconds


@dataclass(frozen=True)
class CardPlan:
    """A run on one card.

    Attributes:
        epoch: What one pass over the data computes.
        flops: Operations of that pass, recomputation included.
        seconds: Of that pass, at the card's expected share of its peak; None if not known.
        epochs: Passes of the run.
    """

    card: Card
    choice: Choice
    epoch: Epoch
    flops: float
    seconds: float | None
    epochs: float


def plan_card(config: TrainConfig, card: Card, lengths: Lengths, *, quantize: bool) -> CardPlan:
    """Choose settings for a card, and say what they cost.

    Args:
        config: The run.
        card: Where it would run.
        lengths: Of its training rows.
        quantize: Whether a base that does not fit may be stored as the card's profile says.
    """
    request = request_of(config, card, lengths)
    choice = choose(request, wanted(config, card, quantize=quantize), card.memory_gib)
    epoch = first_epoch(with_tokens(request.plan, choice.settings.micro_batch_tokens))
    flops = epoch_flops(request, epoch, checkpointing=choice.settings.checkpointing)
    time = None
    if card.peak_tflops is not None and card.flop_share is not None:
        time = seconds(flops, card.peak_tflops, card.flop_share, card.devices)
    epochs = request.plan.num_steps / request.plan.steps_per_epoch
    return CardPlan(card, choice, epoch, flops, time, epochs)


def wanted(config: TrainConfig, card: Card, *, quantize: bool) -> Wanted:
    """Say what the plan may choose and what is set."""
    own = config.quantization.name
    further = card.quantize_to if quantize and own == "none" else None
    return Wanted(
        config.training.micro_batch_tokens,
        config.training.gradient_checkpointing,
        (own,) if further is None else (own, further),
    )


def request_of(
    config: TrainConfig, card: Card, lengths: Lengths, plan: BatchPlan | None = None
) -> Request:
    """Gather what memory follows from.

    Args:
        config: The run.
        card: Where it runs.
        lengths: Of its training rows.
        plan: The order of the run, where it is known already.
    """
    longest = int(lengths.completions.max())
    limit = config.generation.max_new_tokens
    on_cpu = card.on_cpu
    return Request(
        sizes=read_sizes(lengths.architecture, config.model.name),
        lora=config.lora,
        optimizer=config.optimizer.name,
        precision=card.precision,
        plan=plan or _plan(config, card, lengths),
        prompt_tokens=lengths.prompt_tokens,
        max_new_tokens=limit or round(LONGER_THAN_TRAINING * longest) + SPARE_TOKENS,
        slots=config.generation.slots or (CPU_SLOTS if on_cpu else GPU_SLOTS),
        on_cpu=on_cpu,
        packed=on_cpu and card.precision is Precision.bf16,
        varlen=card.varlen,
    )


def _plan(config: TrainConfig, card: Card, lengths: Lengths) -> BatchPlan:
    training = config.training
    layout = training.layout
    # Every prompt begins alike only in a shared prefix; other layouts repeat it.
    shared = lengths.shared if layout is Layout.shared_prefix else 0
    plan = BatchPlan(
        lengths=lengths.lengths,
        num_labels=count_labels(lengths.lengths, lengths.completions, training.loss),
        shared_tokens=shared,
        layout=layout,
        batch_size=training.batch_size,
        micro_batch_tokens=training.micro_batch_tokens,
        micro_batch_size=training.micro_batch_size,
        epochs=training.epochs,
        max_steps=training.steps,
        seed=config.seed,
        world_size=card.devices,
    )
    return plan if config.augmentation.factor == 1 else plan.times(config.augmentation.factor)
