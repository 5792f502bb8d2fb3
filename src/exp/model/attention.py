"""Attention over a stream [prefix | suffix 1 | ... | suffix B], as one function for transformers.

Registered with transformers' AttentionInterface under the name STREAM, so that any decoder whose
attention goes through that interface can be fed a stream: its linear layers, norms and rotary
embeddings act on single tokens and need no change. The layout of the stream arrives as the keyword
argument `segments`, which every decoder hands through to its attention.

Two products compute it: the prefix attends causally to itself, and each suffix, as one row of a
padded rectangle, attends to the prefix and causally to itself. The result is exact. This is what
streams are computed by, wherever `model/varlen_attention.py` is not asked for or does not work.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from exp.data.batch import Segments

STREAM = "exp_stream"

MATERIALISED_SCORES_BYTES = 64 * 2**20
"""Largest score matrix of one layer that the CPU path keeps for its backward, in bytes."""

UNSERVED_ARGUMENTS = ("s_aux", "position_bias")
"""What some models add to the scores. Other arguments that are not used (windows, token types,
caches) either do not matter to a stream or are found out by `forward.choose_layout`."""


def stream_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: Segments,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within a stream.

    Args:
        module: The attention module that calls; unused, part of the interface.
        query: (1, heads, tokens, head_dim).
        key: (1, key_heads, tokens, head_dim); heads is a multiple of key_heads.
        value: Of the shape of `key`.
        attention_mask: None; a stream needs no mask from outside.
        scaling: Factor of the scores.
        segments: How the stream is cut.
        dropout: Share of attention weights dropped in training.
        softcap: Scores are squashed to (-softcap, softcap), as in Gemma 2.

    Returns:
        (1, tokens, heads, head_dim), and None for the weights. Tokens behind the last suffix, which
        fill a stream up, attend to nothing: theirs is zero.

    Raises:
        TypeError: The model asks for something that would change the scores and is not done here.
    """
    refuse_unserved(others)
    prefix_length = segments.prefix_length
    num_suffixes, longest = segments.rows.shape
    outputs = []
    prefix_key = prefix_value = None
    if prefix_length:
        prefix_key, prefix_value = key[:, :, :prefix_length], value[:, :, :prefix_length]
        prefix_out = _attend(
            query[:, :, :prefix_length], prefix_key, prefix_value, 0, scaling, dropout, softcap
        )
        outputs.append(prefix_out.transpose(1, 2)[0])

    def rectangle(states: Tensor) -> Tensor:
        picked = states[0].index_select(1, segments.rows.view(-1))
        return picked.unflatten(1, (num_suffixes, longest)).transpose(0, 1)

    suffix_key, suffix_value = rectangle(key), rectangle(value)
    if prefix_key is not None and prefix_value is not None:
        suffix_key = torch.cat([prefix_key.expand(num_suffixes, -1, -1, -1), suffix_key], dim=2)
        suffix_value = torch.cat(
            [prefix_value.expand(num_suffixes, -1, -1, -1), suffix_value], dim=2
        )
    suffix_out = _attend(
        rectangle(query), suffix_key, suffix_value, prefix_length, scaling, dropout, softcap
    )
    outputs.append(suffix_out.transpose(1, 2).flatten(0, 1).index_select(0, segments.kept))
    filling = query.shape[2] - prefix_length - len(segments.kept)
    if filling:
        outputs.append(query.new_zeros(filling, query.shape[1], value.shape[3]))
    return torch.cat(outputs).unsqueeze(0), None


def refuse_unserved(arguments: Mapping[str, Any]) -> None:
    """Refuse what would change the scores of a stream and is not done.

    Raises:
        TypeError: One of the arguments does.
    """
    asked = [name for name in UNSERVED_ARGUMENTS if arguments.get(name) is not None]
    if asked:
        raise TypeError(f"its attention takes {', '.join(asked)}, which a stream does not have")


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offset: int,
    scaling: float,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """Causal attention in which query i sees the keys up to i + offset.

    On a CPU the fused kernels' backward is several times slower than plain matrix products in
    bf16, so scores are materialised as long as they are small; docs/log.md has the figures.
    """
    batch, heads, length, _ = query.shape
    scores_bytes = batch * heads * length * key.shape[2] * query.element_size()
    if softcap is not None or (
        query.device.type == "cpu" and scores_bytes <= MATERIALISED_SCORES_BYTES
    ):
        return _materialised(query, key, value, offset, scaling, dropout, softcap)
    if query.is_cuda and heads != key.shape[1]:
        # With grouped heads, or with a mask, the kernels that keep no scores step aside one after
        # the other; repeated keys are small beside the scores that would be kept instead.
        group = heads // key.shape[1]
        key, value = (each.repeat_interleave(group, dim=1) for each in (key, value))
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if offset == 0 else _visible(length, offset, query.device),
        is_causal=offset == 0,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=heads != key.shape[1],
    )


def _materialised(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offset: int,
    scaling: float,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    batch, heads, length, head_dim = query.shape
    key_heads, key_length = key.shape[1], key.shape[2]
    group = heads // key_heads
    # The query heads that share a key head become rows of one product, so keys are never repeated.
    folded = (query * scaling).reshape(batch * key_heads, group * length, head_dim)
    keys = key.reshape(batch * key_heads, key_length, head_dim)
    values = value.reshape(batch * key_heads, key_length, value.shape[3])
    mask = causal_mask(length, offset, group, query)
    if softcap is None:
        scores = torch.baddbmm(mask, folded, keys.transpose(1, 2))
    else:
        scores = softcap * torch.tanh(torch.bmm(folded, keys.transpose(1, 2)) / softcap) + mask
    weights = functional.dropout(torch.softmax(scores, dim=-1), dropout)
    return torch.bmm(weights, values).view(batch, heads, length, value.shape[3])


def causal_mask(length: int, offset: int, group: int, like: Tensor) -> Tensor:
    """Make what is added to the scores of a group of heads, whose queries lie one below another.

    Returns:
        (group * length, offset + length) 0 where query i may see key j, else -inf; of the type and
        on the device of `like`.
    """
    mask = torch.zeros(length, offset + length, dtype=like.dtype, device=like.device)
    mask.masked_fill_(~_visible(length, offset, like.device), float("-inf"))
    return mask.repeat(group, 1)


def _visible(length: int, offset: int, device: torch.device) -> Tensor:
    """(length, offset + length) True where query i may see key j."""
    return torch.ones(length, offset + length, dtype=torch.bool, device=device).tril(offset)


AttentionInterface.register(STREAM, stream_attention)
