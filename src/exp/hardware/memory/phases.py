"""Memory of one device by phase and purpose, in bytes: loading, a training step, a validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exp.config.schema import LoraConfig, Precision
from exp.data.plan import BatchPlan
from exp.hardware.memory.activations import FP32, Activations, Setup, activations
from exp.hardware.memory.micro_batch import Forward, MicroBatch
from exp.hardware.memory.sizes import Linear, ModelSizes, adapter_parameters

ITEMSIZE = {Precision.fp32: 4, Precision.bf16: 2, Precision.fp16: 2}

# NF4 with double quantisation: 4 bits, one byte of scale per 64 weights, and an fp32 scale of 256
# of those. Source: Dettmers et al. 2023, QLoRA, section 3. https://arxiv.org/abs/2305.14314
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
INT8_BYTES = 1.0
# GPTQ and AWQ as they are published: 4 bits, and a 16-bit scale and a 4-bit zero per 128 weights.
GROUPED_BYTES = 0.5 + 2.5 / 128

OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0}
"""State per trained parameter: two running means, in fp32 or in 8 bits."""
INDEX = 8
"""Bytes of a token id, a position or an index."""

# As in `generation/engine.py`, which a lower layer cannot import; a test compares them.
PREFILL_TOKENS = 2048
MOST_SCORES = 2**26
MOST_LOGITS = 2**24
CPU_MOST_LOGITS = 6 * 2**20
MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Request:
    """What a run's memory follows from.

    Attributes:
        plan: The order of the run; its limits of a forward are replaced by those that are tried.
        prompt_tokens: The longest prompt's own tokens, behind what all prompts share.
        max_new_tokens: Longest completion that validation decodes.
        slots: Rows that validation decodes side by side.
        packed: Whether weights are laid out for the processor besides, as on a CPU in bf16.
        varlen: Whether FlashAttention computes streams.
    """

    sizes: ModelSizes
    lora: LoraConfig
    optimizer: str
    precision: Precision
    plan: BatchPlan
    prompt_tokens: int
    max_new_tokens: int
    slots: int
    on_cpu: bool
    packed: bool
    varlen: bool = False

    @property
    def targets(self) -> tuple[Linear, ...]:
        return self.sizes.targeted(self.lora.target_modules)

    @property
    def adapter(self) -> int:
        """Parameters of the whole adapter."""
        magnitudes = sum(linear.outputs for linear in self.targets) if self.lora.dora else 0
        per_layer = adapter_parameters(self.targets, self.lora.r) + magnitudes
        return self.sizes.layers * per_layer


@dataclass(frozen=True)
class Phase:
    """One part of a run: what its memory is spent on, when most of it is in use."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Prediction:
    """The memory of a run under some settings.

    Attributes:
        phases: load, training and validation.
        largest: The forward that needs most.
        activations: Of that forward.
    """

    phases: tuple[Phase, ...]
    largest: Forward
    activations: Activations

    @property
    def peak(self) -> int:
        return max(phase.total for phase in self.phases)

    @property
    def peak_phase(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.total)


def predict(
    request: Request,
    forwards: Sequence[Forward],
    *,
    checkpointing: bool,
    quantization: str,
    budget: int | None = None,
) -> Prediction:
    """Add up the phases of a run.

    Args:
        request: Model, adapter, data.
        forwards: The largest forwards of the run as it is cut.
        checkpointing: Whether activations are computed again in the backward.
        quantization: none, int8, nf4, gptq or awq.
        budget: Bytes of the device that a run may use. Decoding on a GPU takes fewer rows side by
            side where they are short; None: as many as it would like.
    """
    item = ITEMSIZE[request.precision]
    lora, sizes = request.lora, request.sizes
    base = base_bytes(sizes, item, quantization)
    largest_weight = max(linear.weights for linear in sizes.linears)
    dequantised = 0 if quantization == "none" else largest_weight * item
    setup = Setup(
        sizes=sizes,
        itemsize=item,
        rank=lora.r,
        targets=request.targets,
        dropout=lora.dropout > 0,
        fused=not lora.dora,
        on_cpu=request.on_cpu,
        checkpointing=checkpointing,
        dequantised=dequantised,
        varlen=request.varlen,
    )
    measured = [
        (activations(setup, forward.batch, gradients=not forward.alone), forward)
        for forward in forwards
    ]
    most, largest = max(measured, key=lambda pair: pair[0].peak)
    adapter = request.adapter
    packs = request.packed and quantization == "none"
    standing = {
        "base": base,
        # One for the forward and one for the backward, the head's included.
        "packed copies": 2 * (sizes.linear_weights + sizes.embedding) * item if packs else 0,
        "adapter": adapter * FP32,
        "optimizer": round(adapter * OPTIMIZER_BYTES[request.optimizer]),
    }
    training = {
        **standing,
        "activations and gradients": most.peak,
        "batches": 2 * _batch_bytes(largest.batch),
    }
    return Prediction(
        (
            Phase("load", {"base": base, "a weight before quantisation": dequantised}),
            Phase("training", training),
            Phase("validation", _validation(request, standing, quantization, budget)),
        ),
        largest,
        most,
    )


def base_bytes(sizes: ModelSizes, itemsize: int, quantization: str) -> int:
    """Bytes of the frozen base; quantisation leaves embeddings, head and norms as they are."""
    embeddings = sizes.embedding * (1 if sizes.tied else 2)
    rest = (embeddings + sizes.vectors) * itemsize
    if quantization == "nf4":
        return rest + round(sizes.linear_weights * NF4_BYTES)
    if quantization in ("gptq", "awq"):
        return rest + round(sizes.linear_weights * GROUPED_BYTES)
    if quantization == "int8":
        scales = sizes.layers * sum(linear.outputs for linear in sizes.linears) * FP32
        return rest + round(sizes.linear_weights * INT8_BYTES) + scales
    return rest + sizes.linear_weights * itemsize


def key_value_bytes(sizes: ModelSizes, itemsize: int) -> int:
    """Keys and values of one token over all layers."""
    return 2 * sizes.layers * sizes.keys * itemsize


def _batch_bytes(batch: MicroBatch) -> int:
    """Token ids, positions, the indices of the stream or the mask, label rows and labels."""
    indices = batch.tokens if batch.padded else batch.rows * batch.longest + batch.tokens
    return INDEX * (2 * batch.tokens + indices + 2 * batch.labels)


def _validation(
    request: Request, standing: Mapping[str, int], quantization: str, budget: int | None
) -> dict[str, int]:
    """Decoding, with merged weights beside the untouched ones, and the optimizer still there."""
    sizes, item = request.sizes, ITEMSIZE[request.precision]
    shared = request.plan.shared_tokens
    own = request.prompt_tokens + request.max_new_tokens
    seen = shared + own
    tokens = max(1, min(PREFILL_TOKENS, MOST_SCORES // (sizes.heads * seen)))
    per_token = (2 * sizes.hidden + 3 * sizes.intermediate + 2 * sizes.queries) * item
    merged = sizes.layers * sum(linear.weights for linear in request.targets) * item
    parts = {
        **standing,
        # Merging changes the weights, upon which their packed copies are made anew, and only the
        # ones that a forward needs.
        "packed copies": standing["packed copies"] // 2,
        "gradients": request.adapter * FP32,
        "merged weights": merged if quantization == "none" and not request.lora.dora else 0,
        "forward": tokens * (per_token + 2 * sizes.heads * seen * FP32),
        "keys and values": 2 * shared * key_value_bytes(sizes, item),
    }
    row = own * key_value_bytes(sizes, item)
    slots = request.slots
    if budget is not None and not request.on_cpu:
        free = budget - sum(parts.values())
        slots = max(1, min(slots, int(MEMORY_SHARE * free / row)))
    parts["keys and values"] += slots * row
    # Drafts ask for more than one row of logits per slot.
    most = CPU_MOST_LOGITS if request.on_cpu else MOST_LOGITS
    parts["logits"] = max(1, most // sizes.vocabulary) * sizes.vocabulary * (item + FP32)
    return parts
