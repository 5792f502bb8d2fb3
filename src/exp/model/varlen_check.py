"""Whether FlashAttention's kernel gives a model's streams what PyTorch's attention gives them.

Asked of the model itself: one forward of a few tokens tells the heads, widths, types and factors of
its attention. At each of these the kernel then attends within a random stream, forward and
backward, on the device; what it should give is computed in fp32.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from exp.config.schema import Attention, Layout, LossOn
from exp.data.batch import Segments, collate
from exp.errors import ModelError
from exp.model.attention import stream_attention
from exp.model.forward import label_states, probe_examples
from exp.model.varlen_attention import varlen_attention, varlen_segments
from exp.records import Rendered

log = logging.getLogger(__name__)

WATCHED_STREAM = "exp_watched_stream"
WATCHED_TOKENS = 24

PREFIX = 150
SUFFIXES = (1, 70, 140, 17)
"""Tokens of the random stream: more than one block of the kernel (64 or 128) of queries and keys,
none of them filled."""

MOST_OFF = 0.08
"""How much of a token's output or gradient, in one head, may differ. Rounding as in the kernel
(weights, their gradients and the output to 16 bits, sums in fp32) gives 0.04 in bf16 and 0.005 in
fp16; the mildest of ten wrong masks gives 0.17, a factor of scores that is 10 % off 0.18."""


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """What computes the attention of a training, and why it is not what the machine would take."""

    attention: Attention
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Heads:
    """What one layer's attention is called with, the tokens apart."""

    num_queries: int
    num_keys: int
    width: int
    value_width: int
    dtype: torch.dtype
    device: torch.device
    scaling: float
    softcap: float | None
    dropout: float


def settle_attention(
    model: PreTrainedModel, layout: Layout, attention: Attention, wanted: Attention
) -> AttentionChoice:
    """Keep FlashAttention where this model's streams are right by it; else log why it is SDPA.

    Args:
        model: On its device, in the type that it computes in.
        layout: Of its batches.
        attention: What was found to work on this machine.
        wanted: What was set; `flash` is not replaced on its own.

    Raises:
        ModelError: FlashAttention was asked for, and does not serve this model.
    """
    if attention is not Attention.flash:
        return AttentionChoice(attention)
    if layout is Layout.padded:
        reason = "padded rows are computed by PyTorch's attention"
    else:
        obstacle = varlen_obstacle(model)
        if obstacle is None:
            return AttentionChoice(attention)
        reason = f"FlashAttention does not serve this model: {obstacle}"
        if wanted is Attention.flash:
            raise ModelError(
                f"{reason}.", where="hardware.attention=flash", fix="hardware.attention=sdpa"
            )
    level = logging.WARNING if wanted is Attention.flash else logging.INFO
    log.log(level, "hardware.attention=%s: %s", Attention.sdpa.value, reason)
    return AttentionChoice(Attention.sdpa, reason)


def varlen_obstacle(model: PreTrainedModel) -> str | None:
    """Say why the kernel does not serve this model; None if it does.

    Random numbers stay as they were, so that a seed means the same with and without it.
    """
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        for heads in sorted(_heads_of(model), key=str):
            obstacle = heads_obstacle(heads)
            if obstacle is not None:
                return obstacle
    return None


def heads_obstacle(heads: Heads) -> str | None:
    """Say why the kernel does not serve attention of this shape; None if it does."""
    name = (
        f"{heads.num_queries} heads on {heads.num_keys}, {heads.width} wide, in "
        f"{str(heads.dtype).removeprefix('torch.')}"
    )
    try:
        off = _off(heads)
    # Kernels and binary wheels raise whatever they like.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return f"{name}: {type(error).__name__}: {lines[0]}".rstrip(": ")
    # Not a number is beyond the limit as well.
    worst = max(off, key=lambda part: (off[part] != off[part], off[part]))
    if off[worst] <= MOST_OFF:
        return None
    return f"{name}: {worst} differ by {off[worst]:.1%} from those of PyTorch's attention"


@dataclass(frozen=True, slots=True)
class _Watched(Segments):
    """A cut of a stream that gathers what attention over it was called with."""

    seen: set[Heads]


def _watched_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: _Watched,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    segments.seen.add(
        Heads(
            num_queries=query.shape[1],
            num_keys=key.shape[1],
            width=query.shape[3],
            value_width=value.shape[3],
            dtype=query.dtype,
            device=query.device,
            scaling=scaling,
            softcap=softcap,
            dropout=dropout,
        )
    )
    return stream_attention(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=scaling,
        segments=segments,
        dropout=dropout,
        softcap=softcap,
        **others,
    )


AttentionInterface.register(WATCHED_STREAM, _watched_attention)


@torch.no_grad()
def _heads_of(model: PreTrainedModel) -> set[Heads]:
    """Learn how the layers of a model call their attention while it trains."""
    examples = probe_examples(model.config.get_text_config().vocab_size, WATCHED_TOKENS)
    batch = collate(examples, ("", ""), Layout.packed, LossOn.text)
    cut = batch.segments
    assert cut is not None
    watched = _Watched(cut.prefix_length, cut.rows, cut.kept, set())
    with _as_in_training(model):
        label_states(model, replace(batch, segments=watched).to(model.device))
    return watched.seen


@contextmanager
def _as_in_training(model: PreTrainedModel) -> Iterator[None]:
    before, was_training = model.config._attn_implementation, model.training
    model.set_attn_implementation(WATCHED_STREAM)
    model.train()  # dropout of attention is asked for in this mode alone
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)


def _off(heads: Heads) -> dict[str, float]:
    """Compare the kernel with PyTorch's attention in fp32, on the same 16-bit numbers.

    Returns:
        By outputs and gradients, how much of a token's vector in one head differs at the most. Of
        vectors that are shorter than most it is how much of the mean vector.
    """
    cut = _random_stream().to(heads.device)
    tokens = PREFIX + sum(SUFFIXES)
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(heads.device, heads.dtype)

    # Scores of about 1; where they are squashed larger ones, since on small ones it does nothing.
    spread = 1.0 if heads.softcap is None else max(1.0, heads.softcap / 8)
    # Laid out as projections leave them: the heads of a token side by side.
    query = draw(1, tokens, heads.num_queries, heads.width).transpose(1, 2)
    query = query * (spread / (heads.scaling * heads.width**0.5))
    key = draw(1, tokens, heads.num_keys, heads.width).transpose(1, 2)
    value = draw(1, tokens, heads.num_keys, heads.value_width).transpose(1, 2)
    slope = draw(1, tokens, heads.num_queries, heads.value_width)
    same: dict[str, Any] = {"scaling": heads.scaling, "softcap": heads.softcap}
    module = torch.nn.Module()

    def with_gradients(attend: Any, segments: Any, dtype: torch.dtype) -> list[Tensor]:
        states = [each.detach().to(dtype).requires_grad_() for each in (query, key, value)]
        output = attend(module, *states, None, segments=segments, **same)[0]
        gradients = torch.autograd.grad(output, states, slope.to(dtype))
        return [each.float() for each in (output.detach(), *gradients)]

    segments = varlen_segments(cut)
    found = with_gradients(varlen_attention, segments, heads.dtype)
    if heads.dropout:
        # What is dropped cannot be compared, but not every kernel drops with every option.
        states = (query, key, value)
        varlen_attention(module, *states, None, segments=segments, dropout=heads.dropout, **same)
    expected = with_gradients(stream_attention, cut, torch.float32)
    names = ("outputs", "gradients of queries", "gradients of keys", "gradients of values")
    pairs = zip(names, found, expected, strict=True)
    return {name: _worst_row(each, right) for name, each, right in pairs}


def _worst_row(found: Tensor, expected: Tensor) -> float:
    lengths = expected.norm(dim=-1)
    usual = lengths.square().mean().sqrt()
    return float(((found - expected).norm(dim=-1) / lengths.clamp(min=usual)).max())


def _random_stream() -> Segments:
    """Let the collator cut the stream, as it does in training."""
    shared = tuple(range(PREFIX))
    rendered = [
        Rendered((*shared, PREFIX + index), tuple(range(length - 1)))
        for index, length in enumerate(SUFFIXES)
    ]
    cut = collate(rendered, [""] * len(rendered), Layout.shared_prefix, LossOn.text).segments
    assert cut is not None
    assert cut.prefix_length == PREFIX
    return cut
