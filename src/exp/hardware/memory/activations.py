"""What one forward and backward of a micro-batch keep, and where they peak, in bytes.

The formulas follow the code that trains: `model/fused_lora.py`, `model/fused_elementwise.py`,
`model/attention.py`, `model/varlen_attention.py` and `training/loss.py`. The base is frozen, so a
linear layer keeps its input only for the adapter on it; norms keep their normed input, the gated
MLP its two products, attention its operands and, where scores are materialised, the weights. Memory
peaks at one of five places::

    loss        all activations, and a chunk of logits with its softmax
    final norm  all activations, and a gradient in fp32
    MLP         the backward of a layer's MLP: four tensors of the intermediate width
    attention   the backward of its attention: two more tensors of the weights' size, or the sums in
                fp32 and the ungrouped gradients of FlashAttention's kernel
    prefix      the same for the attention within the shared prefix

Layers that train as one function (`model/fused_layer`) keep somewhat less than the same layers of
modules, for which the formulas are: no second copy of what the prefix's attention reads, and one
tensor of the weights' size in its backward.

With checkpointing a layer keeps its input alone; the last three places then hold one layer's
activations, computed again.
"""

from dataclasses import dataclass

from exp.hardware.memory.micro_batch import MicroBatch
from exp.hardware.memory.sizes import Linear, ModelSizes, adapter_parameters

FP32 = 4

MATERIALISED_SCORES_BYTES = 64 * 2**20
"""As in `model/attention.py`, from which a lower layer cannot import; a test compares them."""
LOGITS_BYTES = 128 * 2**20
CPU_LOGITS_BYTES = 24 * 2**20
"""As in `training/loss.py`; a test compares them."""

ROW_MULTIPLE = 16
"""As in `model/packed_linear.py`; a test compares them."""

INDEX32, INDEX64 = 4, 8
"""Bytes of an index."""
KERNEL_BLOCK = 128
"""Queries in a block of FlashAttention's kernel."""
MOST_MULTIPROCESSORS = 192
"""Of one card; the largest that is sold has 188."""

QKV = ("q_proj", "k_proj", "v_proj")
GATED = ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class Setup:
    """How the base computes.

    Attributes:
        itemsize: Bytes of an activation.
        rank: Of the adapter.
        targets: The linear layers of a decoder layer that have an adapter.
        dropout: Whether the adapter's inputs are dropped.
        fused: Whether LoRA layers have the fused forward of `model/fused_lora.py`.
        on_cpu: There, small attention scores are materialised.
        dequantised: Bytes of a quantised weight's copy while it is used; 0 without.
        varlen: Whether streams go through FlashAttention's kernel.
    """

    sizes: ModelSizes
    itemsize: int
    rank: int
    targets: tuple[Linear, ...]
    dropout: bool
    fused: bool
    on_cpu: bool
    checkpointing: bool
    dequantised: int = 0
    varlen: bool = False

    def among(self, *names: str) -> tuple[Linear, ...]:
        """The named layers that have an adapter."""
        return tuple(linear for linear in self.targets if linear.name in names)


@dataclass(frozen=True, slots=True)
class Activations:
    """What a micro-batch needs beyond weights, adapter and optimizer.

    Attributes:
        kept: What the backward will need, when the forward is done.
        peak: The most that exists at a time, gradients included.
        place: Where that is; see the module's text.
    """

    kept: int
    peak: int
    place: str


@dataclass(frozen=True, slots=True)
class _Attention:
    """Bytes of one layer's attention.

    Attributes:
        kept: All that its backward needs.
        weights: Of it, the suffixes' attention weights; 0 where a fused kernel keeps none.
        prefix_weights: The same of the prefix.
        operands: What the suffixes' part keeps besides weights: queries, keys, values.
        workspace: What the backward takes besides a gradient for each query, key and value.
        indices: What all layers share.
    """

    kept: int
    weights: int = 0
    prefix_weights: int = 0
    operands: int = 0
    workspace: int = 0
    indices: int = 0


def activations(setup: Setup, batch: MicroBatch, *, gradients: bool) -> Activations:
    """Predict the memory of one forward and backward.

    Args:
        setup: Model, adapter and type.
        batch: The micro-batch.
        gradients: Whether the adapter's gradients exist before, from another micro-batch.
    """
    sizes, item = setup.sizes, setup.itemsize
    tokens = _rows(setup, batch)
    hidden, wide = tokens * sizes.hidden * item, tokens * sizes.intermediate * item
    outputs, key_outputs = tokens * sizes.queries * item, tokens * sizes.keys * item
    norm = _norm(setup, tokens * sizes.hidden, tokens)
    attention = _attention(setup, batch)
    upper = norm + _inputs(setup, tokens, QKV, sizes.hidden) + _head_norms(setup, tokens)
    upper += attention.kept
    output = _inputs(setup, tokens, ("o_proj",), sizes.queries)
    product = _inputs(setup, tokens, ("down_proj",), sizes.intermediate)
    lower = norm + _inputs(setup, tokens, GATED, sizes.hidden) + 2 * wide
    layer = upper + output + lower + product + (sizes.norms - 2) * norm

    rotary = 2 * tokens * sizes.head_dim * item * sizes.rotations + attention.indices
    rows = batch.labels * sizes.hidden * item
    # The embeddings need no gradient, so the first norm keeps nothing.
    first = layer - norm
    if setup.checkpointing:
        below_last, kept = rotary + sizes.layers * hidden, rotary + sizes.layers * hidden
        below_first = rotary + hidden
    else:
        below_last = rotary + (first + (sizes.layers - 2) * layer if sizes.layers > 1 else 0)
        kept = below_last + (layer if sizes.layers > 1 else first)
        below_first = rotary
    kept += norm + rows

    # The backward runs from the last layer to the first: activations go, gradients come.
    adapter = adapter_parameters(setup.targets, setup.rank) * FP32
    done = 0 if gradients else (sizes.layers - 1) * adapter
    below = rows + setup.dequantised + max(below_last, below_first + done)
    own = adapter_parameters(setup.among("down_proj"), setup.rank) * FP32
    mlp = layer - product + hidden + 4 * wide + own * (not gradients)
    # The adapter of the last linear layer: the gradient of its input; with dropout also the mask in
    # the type of that input, and what it leaves of it.
    down = layer + 2 * hidden + (1 + 2 * setup.dropout) * wide
    others = adapter_parameters(setup.among("o_proj", *GATED, "down_proj"), setup.rank) * FP32
    in_attention = upper + hidden + outputs + others * (not gradients)
    # Gradients of queries and keys come after those of the weights; the suffixes' before the
    # prefix'.
    suffix = in_attention + attention.workspace + 2 * attention.weights
    if not attention.weights:
        suffix += outputs + 2 * key_outputs
    prefix = in_attention - attention.weights - attention.operands
    prefix += outputs + 2 * key_outputs + 2 * attention.prefix_weights
    places = {
        "loss": kept + _loss(setup, batch),
        "final norm": kept + _norm_backward(setup, tokens),
        "MLP": below + max(mlp, down),
        "attention": below + suffix,
        "prefix": below + prefix,
    }
    place = max(places, key=lambda name: places[name])
    existing = sizes.layers * adapter if gradients else 0
    return Activations(kept + existing, places[place] + existing, place)


def _rows(setup: Setup, batch: MicroBatch) -> int:
    """Rows that linear layers compute: streams in bf16 are filled up to whole tiles on a CPU."""
    if batch.padded or not setup.on_cpu or setup.itemsize == FP32:
        return batch.tokens
    return -(-batch.tokens // ROW_MULTIPLE) * ROW_MULTIPLE


def _inputs(setup: Setup, tokens: int, names: tuple[str, ...], width: int) -> int:
    """What the adapters that read one tensor keep: it, its mask, low-rank products, casts."""
    readers = setup.among(*names)
    if not readers:
        return 0
    if not setup.fused:
        # PEFT casts each input to fp32 for itself, and drops elements of a copy.
        copies = 2 if setup.dropout else 1
        kept = len(readers) * tokens * (copies * width * FP32 + setup.rank * FP32)
        return kept + len(readers) * tokens * width * setup.dropout
    kept = tokens * width * (setup.itemsize + setup.dropout)
    kept += len(readers) * tokens * setup.rank * setup.itemsize
    if setup.itemsize < FP32:
        kept += adapter_parameters(readers, setup.rank) * setup.itemsize
    elif len(readers) > 1:
        kept += len(readers) * setup.rank * width * FP32  # their lora_A, stacked into one
    return kept


def _norm(setup: Setup, elements: int, rows: int) -> int:
    """What a norm keeps: its input, normed or not, and one scale a row."""
    return elements * setup.itemsize + rows * FP32


def _head_norms(setup: Setup, tokens: int) -> int:
    sizes = setup.sizes
    if not sizes.head_norms:
        return 0
    elements = tokens * (sizes.queries + sizes.keys)
    return _norm(setup, elements, tokens * (sizes.heads + sizes.key_heads))


def _attention(setup: Setup, batch: MicroBatch) -> _Attention:
    sizes, item = setup.sizes, setup.itemsize
    seen = batch.prefix + batch.longest
    rectangle = batch.rows * batch.longest
    queries, keys = sizes.queries * item, sizes.keys * item
    if batch.padded:
        # The fused kernel keeps queries, keys, values, the log of denominators, and its output,
        # which is the input of o_proj as well.
        kept = batch.tokens * (queries + 2 * keys + sizes.heads * FP32)
        if not setup.among("o_proj"):
            kept += batch.tokens * queries
        if batch.ragged:
            # A mask rules out the grouping of heads, and is kept once per layer.
            kept += batch.tokens * 2 * (queries - keys) + batch.rows * batch.longest**2 * item
        return _Attention(kept)
    if setup.varlen:
        return _varlen_attention(setup, batch)
    # On CUDA keys and values are repeated for all heads of their group.
    repeated = keys if setup.on_cpu else queries
    operands = rectangle * queries + 2 * batch.rows * seen * repeated
    weights = batch.rows * sizes.heads * batch.longest * seen * item
    if not _materialises(setup, weights):
        # The output and its log denominators; behind a prefix a mask of the activations' type.
        operands += rectangle * (queries + sizes.heads * FP32)
        operands += batch.longest * seen * item if batch.prefix else 0
        weights = 0
    kept, prefix_weights = operands + weights, 0
    if batch.prefix:
        kept += batch.tokens * 2 * keys if setup.on_cpu else batch.prefix * 2 * queries
        prefix_weights = sizes.heads * batch.prefix**2 * item
        if _materialises(setup, prefix_weights):
            kept += batch.prefix * queries + prefix_weights
        else:
            prefix_weights = 0
            kept += (batch.tokens + batch.prefix) * queries + batch.prefix * sizes.heads * FP32
    return _Attention(kept, weights, prefix_weights, operands)


def _varlen_attention(setup: Setup, batch: MicroBatch) -> _Attention:
    """One call for all sequences: the prefix and each row behind it, or each row."""
    sizes, item = setup.sizes, setup.itemsize
    queries, keys = sizes.queries * item, sizes.keys * item
    # Each row sees a copy of the prefix's keys; without a prefix keys stay where they are.
    seen = batch.tokens + batch.rows * batch.prefix
    kept = batch.tokens * (queries + sizes.heads * FP32) + 2 * seen * keys
    if not (setup.fused and setup.among("o_proj")):
        kept += batch.tokens * queries  # its output, which is no one's input as it is
    sequences = batch.rows + (batch.prefix > 0)
    indices = 2 * (sequences + 1) * INDEX32
    if batch.prefix:
        indices += 2 * seen * INDEX64
    # FlashAttention's csrc/flash_attn/flash_api.cpp, mha_varlen_bwd: sums of the queries' gradients
    # in fp32 with room for one more block per sequence, several of them where heads and sequences
    # are fewer than multiprocessors, and gradients of keys and values before heads are grouped.
    rows = batch.tokens + KERNEL_BLOCK * sequences
    splits = -(-MOST_MULTIPROCESSORS // (sequences * sizes.heads))
    step = 32 if sizes.head_dim <= 128 else 64
    width = -(-sizes.head_dim // step) * step
    workspace = rows * sizes.heads * (splits * width + 1) * FP32
    workspace += 2 * (seen - batch.tokens) * keys
    if sizes.key_heads != sizes.heads:
        workspace += 2 * seen * queries
    return _Attention(kept, workspace=workspace, indices=indices)


def _materialises(setup: Setup, weights: int) -> bool:
    return setup.on_cpu and weights <= MATERIALISED_SCORES_BYTES


def _loss(setup: Setup, batch: MicroBatch) -> int:
    """The gradient of the label rows, and what the chunks of logits take."""
    sizes, item = setup.sizes, setup.itemsize
    cast = item if item < FP32 else 0
    most = max(1, (CPU_LOGITS_BYTES if setup.on_cpu else LOGITS_BYTES) // (FP32 * sizes.vocabulary))
    first = min(most, batch.labels)
    logits = first * (2 * FP32 + 2 * cast)
    if batch.labels > most:
        # Names in the loop hold the chunk before while the next one is computed.
        second = min(most, batch.labels - most)
        logits = max(
            logits,
            first * 2 * FP32 + second * (FP32 + cast),
            first * FP32 + second * (2 * FP32 + cast),
        )
    return (batch.labels + first) * sizes.hidden * item + logits * sizes.vocabulary


def _norm_backward(setup: Setup, tokens: int) -> int:
    """The gradient that comes in, and three tensors in fp32; in fp32 two of them are one."""
    elements = tokens * setup.sizes.hidden
    return elements * (setup.itemsize + (3 if setup.itemsize < FP32 else 2) * FP32)
