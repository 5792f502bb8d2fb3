"""Attention of new tokens over the shared prefix and their row's slot, for transformers.

Registered with AttentionInterface under the name DECODE. The prefix' keys are stored once, for all
rows, so the scores against it are one product per key head over the whole stream, without padding.
The two parts are joined by the logarithms of their softmax denominators, which is exact.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from exp.generation.slots import Arrangement, SlotStore

DECODE = "exp_decode"


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    store: SlotStore,
    arrangement: Arrangement,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Store the new tokens' keys and values, then attend.

    Args:
        module: The attention module that calls; its `layer_idx` names the storage.
        query: (1, heads, tokens, head_dim).
        key: (1, key_heads, tokens, head_dim).
        value: Of the shape of `key`.
        attention_mask: None.
        scaling: Factor of the scores.
        store: Where keys and values are kept.
        arrangement: Which rows the tokens belong to.
        softcap: Scores are squashed to (-softcap, softcap), as in Gemma 2.

    Returns:
        (1, tokens, heads, head_dim), and None for the weights.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    at, states = arrangement, store.states[layer]
    key_heads, head_dim = key.shape[1], key.shape[3]
    states[0].view(-1, head_dim).index_copy_(0, at.cells, key.reshape(-1, head_dim))
    states[1].view(-1, head_dim).index_copy_(0, at.cells, value.reshape(-1, head_dim))

    scaled = query[0] * scaling  # (heads, tokens, head_dim)
    out, log_sum = _own(scaled, states[:, at.first : at.first + at.num_rows], at, softcap)
    if store.prefix is not None:
        prefix_keys, prefix_values = store.prefix[layer]
        folded = scaled.reshape(key_heads, -1, head_dim)
        from_prefix, prefix_log_sum = _attend(
            torch.bmm(folded, prefix_keys.transpose(1, 2)).float(), prefix_values, softcap
        )
        share = torch.sigmoid(log_sum - prefix_log_sum.view(log_sum.shape))
        out = from_prefix.view(out.shape).lerp(out, share)
    return out.to(query.dtype).transpose(0, 1).unsqueeze(0), None


def _own(
    query: Tensor, states: Tensor, at: Arrangement, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Attend to the rows' own tokens.

    Args:
        query: (heads, tokens, head_dim), scaled.
        states: (2, rows, key_heads, slot_tokens, head_dim).
        at: The stream's arrangement.
        softcap: See `decode_attention`.

    Returns:
        (heads, tokens, head_dim) in fp32 and the log of the denominators, (heads, tokens, 1).
    """
    rows, widest, key_heads = at.num_rows, at.widest, states.shape[2]
    keys, values = states.flatten(1, 2)[:, :, : at.seen]  # (rows * key_heads, seen, head_dim)
    if keys.device.type == "cpu":
        # oneDNN's transposed bf16 product is ten times slower on keys with a gap between rows.
        keys = keys.contiguous()
    if at.rectangle is not None:
        query = query.index_select(1, at.rectangle)
    # (rows * key_heads, group * widest, dim): query heads that share a key head lie together.
    folded = query.unflatten(1, (rows, widest)).unflatten(0, (key_heads, -1))
    folded = folded.permute(2, 0, 1, 3, 4).reshape(rows * key_heads, -1, query.shape[2])
    scores = torch.bmm(folded, keys.transpose(1, 2)).float()
    bias = at.bias[:, None, None].expand(-1, key_heads, folded.shape[1] // widest, -1, -1)
    out, log_sum = _attend(scores, values, softcap, bias)

    def stream(part: Tensor) -> Tensor:
        # (rows * key_heads, group * widest, x) -> (heads, tokens, x)
        part = part.view(rows, query.shape[0], widest, -1).transpose(0, 1).flatten(1, 2)
        return part if at.real is None else part.index_select(1, at.real)

    return stream(out), stream(log_sum)


def _attend(
    scores: Tensor, values: Tensor, softcap: float | None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax over float32 scores (batch, queries, keys), times the values.

    Args:
        scores: Changed in place.
        values: (batch, keys, dim).
        softcap: See `decode_attention`.
        bias: Added to the scores; viewed as its shape.

    Returns:
        (batch, queries, dim) in fp32 and the log of the denominators, (batch, queries, 1).
    """
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    if bias is not None:
        scores.view(bias.shape).add_(bias)
    weights = torch.softmax(scores, dim=-1)
    # The largest weight is exp(largest score - log of the denominator). The fused softmax and two
    # maxima take less time than exponentials and sums by themselves.
    log_sum = scores.amax(dim=-1, keepdim=True) - weights.amax(dim=-1, keepdim=True).log_()
    return torch.bmm(weights.to(values.dtype), values).float(), log_sum


AttentionInterface.register(DECODE, decode_attention)
