"""Run one Batch through the decoder and pick the rows that carry loss."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from exp.config.schema import Attention, Layout, LossOn
from exp.data.batch import Batch, collate
from exp.model.attention import STREAM
from exp.model.base import body_of, plain_attention
from exp.model.packed_linear import ROW_MULTIPLE
from exp.model.varlen_attention import VARLEN_STREAM, varlen_segments
from exp.model.widening import computing_in_fp32
from exp.records import Rendered

PROBE_TOKENS = 24
MOST_OFF = 1e-3
"""How much of a hidden state may differ between the layouts, in fp32. Rounding was seen to give
7e-6 over thirty layers, and the mildest of six wrong masks 0.19."""
MOST_OFF_IN_16_BITS = 0.5
"""The same where fp32 cannot be had: rounding in bf16 gives 0.34 and wrong masks 0.2 to 2, so that
only gross ones are seen."""


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout that a model will be fed in, and why it is not the one that was asked for."""

    layout: Layout
    reason: str | None = None


def choose_layout(
    model: PreTrainedModel, wanted: Layout, longest_example_tokens: int
) -> LayoutChoice:
    """Fall back to padded rows where a stream would not be exact.

    A stream's attention knows full causal attention only. Layers of another kind see the same
    tokens as long as no example is longer than their window; recurrent layers never do. What a
    config does not tell is found by trying: a few tokens go through the model in both layouts.
    """
    if wanted is Layout.padded:
        return LayoutChoice(Layout.padded)
    if not getattr(model, "_supports_attention_backend", False):
        return LayoutChoice(
            Layout.padded, f"{type(model).__name__} does not take its attention from outside"
        )
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    foreign = kinds - {"full_attention", "sliding_attention"}
    if foreign:
        return LayoutChoice(Layout.padded, f"the model has layers of kind {', '.join(foreign)}")
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds or getattr(
        config, "use_sliding_window", window is not None
    )
    if window and slides and longest_example_tokens > window:
        return LayoutChoice(
            Layout.padded,
            f"an example of {longest_example_tokens} tokens is longer than the model's sliding "
            f"window of {window}",
        )
    obstacle = _stream_obstacle(model, wanted, min(PROBE_TOKENS, longest_example_tokens))
    return LayoutChoice(wanted) if obstacle is None else LayoutChoice(Layout.padded, obstacle)


def prepare_for_layout(
    model: PreTrainedModel, layout: Layout, attention: Attention = Attention.sdpa
) -> None:
    """Give the model the attention function that the layout's batches need.

    Args:
        model: The causal LM.
        layout: Of its batches.
        attention: What computes streams; `flash` only where `varlen_check` found it right.
    """
    stream = VARLEN_STREAM if attention is Attention.flash else STREAM
    model.set_attn_implementation(plain_attention(model) if layout is Layout.padded else stream)


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Recompute each layer's activations in the backward instead of keeping them.

    Reentrant checkpointing gives no gradients where, as here, the inputs need none.
    """
    # transformers renamed it in 5.2x; the old name warns there and goes with version 6.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def label_states(model: PreTrainedModel, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
    """Compute the final hidden states at the label rows, (labels, hidden).

    The model must have been prepared for the batch's layout.

    Args:
        model: The causal LM.
        batch: Its tokens.
        embeddings: What its tokens are embedded as; None: as the model embeds them.
    """
    position_ids = batch.position_ids
    tokens = {"input_ids": batch.input_ids} if embeddings is None else {"inputs_embeds": embeddings}
    more = _filling(batch, model)
    if more:
        position_ids = functional.pad(position_ids, (0, more))
        tokens = {
            name: functional.pad(value, (*(0, 0) * (value.dim() - 2), 0, more))
            for name, value in tokens.items()
        }
    extra: dict[str, Any] = {} if batch.segments is None else {"segments": batch.segments}
    if batch.segments is not None and model.config._attn_implementation == VARLEN_STREAM:
        extra = {"segments": varlen_segments(batch.segments)}
    hidden = body_of(model)(
        **tokens,
        position_ids=position_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        **extra,
    ).last_hidden_state
    states: Tensor = hidden.flatten(0, 1).index_select(0, batch.label_rows.to(hidden.device))
    return states


def _filling(batch: Batch, model: PreTrainedModel) -> int:
    """How many tokens to put behind a stream so that it is a whole number of tiles.

    Nothing sees them and they carry no loss, so they change no result. Only a CPU's products in
    bf16 are computed over the whole stream in tiles that tall.
    """
    if batch.segments is None or model.device.type != "cpu" or model.dtype is not torch.bfloat16:
        return 0
    return -batch.input_ids.shape[1] % ROW_MULTIPLE


@torch.no_grad()
def _stream_obstacle(model: PreTrainedModel, layout: Layout, num_tokens: int) -> str | None:
    """Say why a stream does not give this model's own hidden states; None if it does.

    Both are computed in fp32, whatever the type of the weights: over thirty layers, rounding in
    16 bits changes single states by as much as some wrong masks do.
    """
    if model.device.type == "meta" or num_tokens < 2:
        return None
    examples = probe_examples(model.config.get_text_config().vocab_size, num_tokens)
    before, was_training = model.config._attn_implementation, model.training

    def states(each: Layout, wide: bool) -> Tensor:
        prepare_for_layout(model, each)
        batch = collate(examples, ("", ""), each, LossOn.text)
        batch = replace(batch, label_rows=_rows_by_example(batch)).to(model.device)
        with computing_in_fp32(model) if wide else nullcontext():
            return label_states(model, batch).float()

    wide = True
    model.eval()
    try:
        try:
            expected = states(Layout.padded, wide)
        except (TypeError, ValueError, RuntimeError):
            # Kernels of some quantised checkpoints take activations of 16 bits only.
            wide = False
            expected = states(Layout.padded, wide)
        try:
            found = states(layout, wide)
        except (TypeError, ValueError, RuntimeError) as error:
            return str(error).splitlines()[0]
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
    # By row: few rows see a wrong mask, and many right ones would hide them in a common norm.
    off = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
    limit = MOST_OFF if wide else MOST_OFF_IN_16_BITS
    return None if off <= limit else f"a stream changes its hidden states by {off:.1%}"


def _rows_by_example(batch: Batch) -> Tensor:
    """The rows of all tokens, example by example, of examples that are equally long."""
    prefix = 0 if batch.segments is None else batch.segments.prefix_length
    own = torch.arange(prefix, batch.input_ids.numel()).view(len(batch.example_ids), -1)
    return torch.cat([torch.arange(prefix).expand(len(own), -1), own], dim=1).flatten()


def probe_examples(vocabulary: int, num_tokens: int) -> list[Rendered]:
    """Two examples that begin alike and end differently."""
    return [
        Rendered(
            tuple(i % vocabulary for i in (*range(num_tokens - 3), first)),
            tuple(i % vocabulary for i in (first + 1, first + 2)[: num_tokens - 1]),
        )
        for first in (num_tokens, 2 * num_tokens)
    ]
