"""Attention of new tokens over the shared prefix and their row's slot, for transformers.

Registered with AttentionInterface under the name DECODE. The prefix' keys are stored once, for all
rows, so the scores against it are one product per key head over all rows together.
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
    at = arrangement
    stored_keys, stored_values = store.keys[layer], store.values[layer]
    stored_keys[at.token_slots, :, at.token_positions] = key[0].transpose(0, 1)
    stored_values[at.token_slots, :, at.token_positions] = value[0].transpose(0, 1)
    keys = stored_keys[:, :, : at.seen].index_select(0, at.slots)  # (rows, key_heads, seen, dim)
    values = stored_values[:, :, : at.seen].index_select(0, at.slots)

    rows, widest = at.rectangle.shape
    key_heads, head_dim = key.shape[1], key.shape[3]
    group = query.shape[1] // key_heads
    picked = (query[0] * scaling).index_select(1, at.rectangle.view(-1))
    # (key_heads, rows, group * widest, dim): query heads that share a key head lie together.
    folded = picked.view(key_heads, group, rows, widest, head_dim).transpose(1, 2).flatten(2, 3)
    own = torch.matmul(folded.transpose(0, 1), keys.transpose(2, 3))
    own = own.unflatten(2, (group, widest)).float()  # (rows, key_heads, group, widest, seen)
    if softcap is not None:
        own = softcap * torch.tanh(own / softcap)
    own = own.masked_fill_(at.hidden[:, None, None], float("-inf"))
    if not at.prefix_length:
        weights = torch.softmax(own, dim=-1).to(value.dtype).flatten(2, 3)
        out = torch.matmul(weights, values)
    else:
        prefix_keys, prefix_values = store.prefix_keys[layer], store.prefix_values[layer]
        shared = torch.bmm(folded.flatten(1, 2), prefix_keys.transpose(1, 2)).float()
        if softcap is not None:
            shared = softcap * torch.tanh(shared / softcap)
        shared = shared.view(key_heads, rows, group, widest, -1).transpose(0, 1)
        weights = torch.softmax(torch.cat([shared, own], dim=-1), dim=-1).to(value.dtype)
        on_prefix, on_own = weights.split([at.prefix_length, at.seen], dim=-1)
        out = torch.matmul(on_own.flatten(2, 3), values)
        from_prefix = torch.bmm(
            on_prefix.transpose(0, 1).reshape(key_heads, -1, at.prefix_length), prefix_values
        )
        out = out + from_prefix.view(key_heads, rows, group * widest, head_dim).transpose(0, 1)
    out = out.view(rows, key_heads * group, widest, head_dim).transpose(1, 2).flatten(0, 1)
    return out.index_select(0, at.real).unsqueeze(0), None


AttentionInterface.register(DECODE, decode_attention)
