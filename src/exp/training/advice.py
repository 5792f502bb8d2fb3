"""What to try next when memory runs out, a run is slow or its score is low, in order.

Pure functions from facts to advice. Whatever they name can be typed as it stands.
"""

from dataclasses import dataclass

from exp.config.schema import (
    Accelerator,
    Compile,
    Constrain,
    Layout,
    OutputFormat,
    Strategy,
    TrainConfig,
)
from exp.hardware.resolver import ResolvedHardware

# Waiting for batches below this share of the time is not worth a process more.
DATA_WAIT_SHARE = 0.1
# Below this, one in ten of what is scored is wrong, and more training or data may still mend it.
LOW_SCORE = 0.9
# Rows that no training can learn; one in a hundred is about what lowers a score visibly.
NOISE_SHARE = 0.01
# Nats per label: the training rows are known by heart, so more passes over them teach nothing.
MEMORISED_LOSS = 0.02
# A drop from the best validation score that is more than its own scatter on a hundred rows.
SCORE_DROP = 0.02

LARGER = {
    "smollm2_135m": "qwen3_0_6b",
    "gemma3_270m": "qwen3_0_6b",
    "gemma3_270m_pretrained": "qwen3_0_6b",
    "qwen2_5_0_5b": "qwen3_1_7b",
    "qwen3_0_6b": "qwen3_1_7b",
    "llama3_2_1b": "llama3_2_3b",
    "qwen3_1_7b": "qwen3_4b",
    "qwen2_5_3b": "qwen3_8b",
    "llama3_2_3b": "llama3_1_8b",
    "qwen3_4b": "qwen3_8b",
}
"""The next larger model of conf/model."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to try.

    Attributes:
        typed: Overrides of `exp train`, or another command.
        effect: What it does, and what it costs.
    """

    typed: str
    effect: str

    def __str__(self) -> str:
        return f"{self.typed}  ({self.effect})"


@dataclass(frozen=True, slots=True)
class SpeedFacts:
    """How fast a run was; None where it was not measured.

    Attributes:
        useful_flop_share: Useful operations per second, as a share of the devices' peak, 0 to 1.
        data_wait_share: Share of the time that was spent waiting for batches, 0 to 1.
        fills_micro_batch: Whether steps have examples left once a micro-batch is full.
    """

    useful_flop_share: float | None = None
    data_wait_share: float | None = None
    fills_micro_batch: bool = False


@dataclass(frozen=True, slots=True)
class ScoreFacts:
    """How a run ended; None where it was not measured. Shares are 0 to 1.

    Attributes:
        best_score: Best validation score of `task.monitor`.
        last_score: That of the last validation.
        improved_at_the_end: Whether the last validation was the best of several.
        train_loss: Loss at the end of training, in nats per label.
        cut_share: Predictions that were cut at the token limit.
        invalid_share: Predictions that are not of the task's output format or schema.
        noise_share: Training rows that contradict others, by the audit.
    """

    best_score: float | None = None
    last_score: float | None = None
    improved_at_the_end: bool = False
    train_loss: float | None = None
    cut_share: float | None = None
    invalid_share: float | None = None
    noise_share: float | None = None


def advise_out_of_memory(
    config: TrainConfig, *, quantize_to: str | None = None, num_tokens: int | None = None
) -> list[Advice]:
    """Name what needs less memory, the cheapest first.

    Args:
        config: What the run was asked to do.
        quantize_to: What the card's profile quantises to; the profile's own word if None.
        num_tokens: Length of a single example that does not fit by itself. None: smaller
            micro-batches are still possible.
    """
    training, advice = config.training, []
    if num_tokens is None:
        size = training.micro_batch_size
        smaller = f"training.micro_batch_tokens={max(1, training.micro_batch_tokens // 2)}"
        if size is not None:
            smaller = f"training.micro_batch_size={max(1, size // 2)}"
        if size != 1:
            advice.append(Advice(smaller, "half the activations, the same gradient"))
    if not training.gradient_checkpointing:
        advice.append(
            Advice(
                "training.gradient_checkpointing=true",
                "activations of one layer at a time, a third more arithmetic",
            )
        )
    if training.layout is Layout.padded:
        advice.append(Advice("training.layout=shared_prefix", "no padding, the same gradient"))
    kind = quantize_to or config.hardware.quantize_to
    if config.quantization.name == "none" and kind is not None:
        share = "a quarter" if kind == "nf4" else "half"
        advice.append(
            Advice(f"quantization={kind}", f"{share} of the base's memory, slower, less exact")
        )
    if num_tokens is not None:
        advice.append(
            Advice(
                f"data.max_length_tokens={max(2, num_tokens * 3 // 4)} data.on_overlong=skip",
                "leaves the longest examples out, and lists them",
            )
        )
    if config.lora.r > 8:
        advice.append(Advice(f"lora.r={config.lora.r // 2}", "half the adapter and its optimizer"))
    return advice + _more_memory(config)


def _more_memory(config: TrainConfig) -> list[Advice]:
    """Name memory besides that of one device."""
    hardware, advice = config.hardware, []
    if hardware.accelerator is not Accelerator.cuda or hardware.device_map is not None:
        return []
    if hardware.devices > 1:
        spread = "hardware.devices=1 hardware.device_map=balanced"
        advice.append(Advice(spread, "one model over all devices, which compute in turns"))
    if config.quantization.name != "none":
        return advice  # quantised layers cannot be copied over at every use
    offload = "hardware.devices=1 hardware.device_map=auto hardware.offload_gib=8"
    return [*advice, Advice(offload, "weights in CPU memory: slow, the last resort")]


def advise_slow(config: TrainConfig, hardware: ResolvedHardware, facts: SpeedFacts) -> list[Advice]:
    """Name what makes a run faster, if it is slower than the hardware's profile expects."""
    advice = []
    if waits_for_data(facts):
        more = max(1, 2 * hardware.num_workers)
        advice.append(Advice(f"hardware.num_workers={more}", "more processes prepare batches"))
        if hardware.num_workers > 0:
            ahead = 2 * hardware.prefetch_batches
            advice.append(Advice(f"hardware.prefetch_batches={ahead}", "they work further ahead"))
    if computes_slowly(hardware, facts):
        advice += _faster_arithmetic(config, hardware, facts)
    return advice


def waits_for_data(facts: SpeedFacts) -> bool:
    """Whether more time than is due goes into waiting for batches."""
    return facts.data_wait_share is not None and facts.data_wait_share > DATA_WAIT_SHARE


def computes_slowly(hardware: ResolvedHardware, facts: SpeedFacts) -> bool:
    """Whether less of the device is used than its profile expects; no where nothing is known."""
    share, expected = facts.useful_flop_share, hardware.expected_flop_share
    return share is not None and expected is not None and share < expected


def _faster_arithmetic(
    config: TrainConfig, hardware: ResolvedHardware, facts: SpeedFacts
) -> list[Advice]:
    training, advice = config.training, []
    if training.layout is Layout.padded:
        advice.append(
            Advice("training.layout=shared_prefix", "the instruction once, no padding, same result")
        )
    if facts.fills_micro_batch:
        size = training.micro_batch_size
        larger = f"training.micro_batch_tokens={2 * training.micro_batch_tokens}"
        if size is not None:
            larger = f"training.micro_batch_size={min(2 * size, training.batch_size)}"
        if size != training.batch_size:
            advice.append(Advice(larger, "larger products, more memory, same result"))
    if training.gradient_checkpointing:
        advice.append(
            Advice("training.gradient_checkpointing=false", "a quarter less work, more memory")
        )
    if hardware.compile is Compile.off:
        advice.append(Advice("training.compile=layers", "fewer kernels, after a minute or two"))
    if config.quantization.name != "none":
        advice.append(Advice("quantization=none", "nothing to unpack, more memory"))
    if not facts.fills_micro_batch:
        # Last: it is the one that changes what is learned.
        advice.append(
            Advice(
                f"training.batch_size={2 * training.batch_size}",
                "larger products; half as many steps, so the result changes",
            )
        )
    return advice


def advise_low_score(config: TrainConfig, facts: ScoreFacts) -> list[Advice]:
    """Name what may raise a low score: what hides it first, then training, then the model."""
    if not is_low(facts):
        return []
    advice = []
    if (facts.noise_share or 0) > NOISE_SHARE:
        advice.append(
            Advice(f"exp audit task={config.task.name}", "lists training rows that contradict")
        )
    advice += _whole_outputs(config, facts)
    if memorised(facts) or score_fell(facts):
        advice += _against_overfitting(config)
    else:
        advice += _more_training(config, facts)
    larger = LARGER.get(config.model.name)
    if larger is not None:
        advice.append(Advice(f"model={larger}", "the next larger model, slower"))
    return advice


def is_low(facts: ScoreFacts) -> bool:
    return facts.best_score is not None and facts.best_score < LOW_SCORE


def memorised(facts: ScoreFacts) -> bool:
    """Whether the training rows are known, while the score on others is what it is."""
    return facts.train_loss is not None and facts.train_loss < MEMORISED_LOSS


def score_fell(facts: ScoreFacts) -> bool:
    """Whether more training made the model worse on rows that it did not see."""
    if facts.best_score is None or facts.last_score is None:
        return False
    return facts.best_score - facts.last_score > SCORE_DROP


def _whole_outputs(config: TrainConfig, facts: ScoreFacts) -> list[Advice]:
    advice = []
    limit = config.generation.max_new_tokens
    if (facts.cut_share or 0) > NOISE_SHARE and limit is not None:
        advice.append(
            Advice(f"generation.max_new_tokens={2 * limit}", "predictions were cut at the limit")
        )
    can_constrain = (
        config.task.output_format is OutputFormat.json
        and config.task.schema is not None
        and config.generation.strategy is Strategy.greedy
        and config.generation.constrain is Constrain.none
    )
    if (facts.invalid_share or 0) > NOISE_SHARE and can_constrain:
        advice.append(
            Advice("generation.constrain=schema", "admits only what obeys the task's schema")
        )
    return advice


def _against_overfitting(config: TrainConfig) -> list[Advice]:
    advice = []
    if config.augmentation.factor == 1 and config.task.language is not None:
        advice.append(Advice("augmentation=standard", "more wordings of the same rows; audit them"))
    names_are_known = config.augmentation.factor > 1 and config.augmentation.renaming == 0
    if names_are_known and config.task.output_format is OutputFormat.json:
        advice.append(
            Advice("augmentation.renaming=1", "names that nobody has seen can only be copied")
        )
    if config.lora.dropout < 0.1:
        advice.append(Advice("lora.dropout=0.1", "training rows are harder to learn by heart"))
    if config.training.patience is None:
        advice.append(Advice("training.patience=3", "stops once validation gets no better"))
    if config.lora.r > 4:
        advice.append(Advice(f"lora.r={config.lora.r // 2}", "fewer parameters to remember with"))
    return advice


def _more_training(config: TrainConfig, facts: ScoreFacts) -> list[Advice]:
    training, advice = config.training, []
    if facts.improved_at_the_end:
        longer = f"training.epochs={2 * training.epochs:g}"
        if training.steps is not None:
            longer += f" training.steps={2 * training.steps}"
        advice.append(Advice(longer, "the score still rose at the end"))
    if "all-linear" not in config.lora.target_modules:
        advice.append(Advice("lora=all_linear", "adapters on the MLPs too"))
    advice.append(Advice(f"lora.r={2 * config.lora.r}", "a larger adapter"))
    if not facts.improved_at_the_end:
        advice.append(
            Advice(f"optimizer.lr={config.optimizer.lr / 2:g}", "smaller steps settle deeper")
        )
    return advice
