"""Attention over a stream by FlashAttention's kernel for sequences of differing lengths.

Computes what `model/attention.py` computes, in one call, without rectangles: no padding, no scores
in memory. The sequences are the prefix and each suffix; queries are the stream as it lies, and the
keys of a suffix are a copy of the prefix's with its own behind them::

    queries   [prefix | suffix 1        | suffix 2        | ... ]
    keys      [prefix | prefix suffix 1 | prefix suffix 2 | ... ]

The kernel aligns its causal mask with the last query and the last key of each sequence, which is
what a stream needs. It exists for CUDA, in 16 bits; `model/varlen_check.py` says whether it works.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from transformers import AttentionInterface

from exp.data.batch import Segments
from exp.model.attention import refuse_unserved

VARLEN_STREAM = "exp_varlen_stream"


@dataclass(frozen=True, slots=True)
class Keys:
    """Which tokens' keys the sequences see, where a prefix is shared.

    Attributes:
        tokens: (keys,) index into the stream.
        prefix: (sequences, prefix length) where in `tokens` each sequence has the prefix.
        suffixes: (tokens behind the prefix,) where in `tokens` each of them is.
    """

    tokens: Tensor
    prefix: Tensor
    suffixes: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Keys":
        """Copy all tensors to a device."""
        tensors = (self.tokens, self.prefix, self.suffixes)
        return Keys(*(each.to(device, non_blocking=non_blocking) for each in tensors))


@dataclass(frozen=True, slots=True)
class VarlenSegments:
    """How a stream is cut, as the kernel wants it; made once per forward, for all layers.

    Attributes:
        query_ends: (sequences + 1,) int32, 0 and where each sequence ends among the queries.
        key_ends: The same among the keys.
        keys: None without a prefix: the keys are then the stream's own.
        longest_query: Queries of a sequence at the most.
        longest_key: Keys of a sequence at the most.
    """

    query_ends: Tensor
    key_ends: Tensor
    keys: Keys | None
    longest_query: int
    longest_key: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VarlenSegments":
        """Copy all tensors to a device; called where a model is spread over several."""
        return replace(
            self,
            query_ends=self.query_ends.to(device, non_blocking=non_blocking),
            key_ends=self.key_ends.to(device, non_blocking=non_blocking),
            keys=None if self.keys is None else self.keys.to(device, non_blocking),
        )


def varlen_segments(segments: Segments) -> VarlenSegments:
    """Lay out the sequences of a stream, without waiting for the device."""
    prefix, rows, kept = segments.prefix_length, segments.rows, segments.kept
    num_suffixes, longest = rows.shape
    lengths = rows[:, -1] - rows[:, 0] + 1
    if not prefix:
        ends = functional.pad(lengths.cumsum(0), (1, 0)).int()
        # The compiler does not trace a function that gets one tensor as two.
        return VarlenSegments(ends, ends.clone(), None, longest, longest)
    lengths = functional.pad(lengths, (1, 0), value=prefix)
    key_lengths = lengths + prefix
    key_lengths[0] = prefix
    key_ends = functional.pad(key_lengths.cumsum(0), (1, 0))
    copies = key_ends[:-1, None] + torch.arange(prefix, device=rows.device)
    # The tokens of suffix i (from 0) have i + 1 copies of the prefix more before them among the
    # keys than they have in the stream.
    behind = torch.arange(prefix, prefix + kept.numel(), device=rows.device)
    suffixes = behind + (kept // longest + 1) * prefix
    tokens = rows.new_empty((num_suffixes + 1) * prefix + kept.numel())
    tokens[copies] = torch.arange(prefix, device=rows.device)
    tokens[suffixes] = behind
    return VarlenSegments(
        query_ends=functional.pad(lengths.cumsum(0), (1, 0)).int(),
        key_ends=key_ends.int(),
        keys=Keys(tokens, copies, suffixes),
        longest_query=max(prefix, longest),
        longest_key=prefix + longest,
    )


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: VarlenSegments,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within a stream; arguments, shapes and errors are those of `stream_attention`."""
    from flash_attn import flash_attn_varlen_func

    refuse_unserved(others)
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    if segments.keys is not None:
        keys, values = _gathered(keys, segments.keys), _gathered(values, segments.keys)
    attended = flash_attn_varlen_func(
        queries,
        keys,
        values,
        segments.query_ends,
        segments.key_ends,
        segments.longest_query,
        segments.longest_key,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
        softcap=softcap or 0.0,
        # Without it the gradients of queries are added up in whatever order blocks come to an end,
        # and the same seed would not give the same adapter. It costs a buffer of zeros per call,
        # and several of them only where there are fewer heads and sequences than multiprocessors.
        deterministic=True,
    )
    return attended.unsqueeze(0), None


def _gathered(states: Tensor, keys: Keys) -> Tensor:
    gathered: Tensor = _Gather.apply(states, keys.tokens, keys.prefix, keys.suffixes)
    return gathered


class _Gather(torch.autograd.Function):
    """index_select whose backward adds the prefix's copies up in one order, and in fp32.

    Its own backward adds them one by one: on CUDA in any order, and rounded to 16 bits each time.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, states: Tensor, tokens: Tensor, prefix: Tensor, suffixes: Tensor
    ) -> Tensor:
        ctx.save_for_backward(prefix, suffixes)
        return states.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        prefix, suffixes = ctx.saved_tensors
        copies = gradient.index_select(0, prefix.view(-1)).unflatten(0, prefix.shape)
        return torch.cat([copies.sum(0), gradient.index_select(0, suffixes)]), None, None, None


AttentionInterface.register(VARLEN_STREAM, varlen_attention)
