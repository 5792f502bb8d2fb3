"""Attention over a stream with its gradient written out, from joint queries, keys and values.

Computes what `model/attention.py` computes where scores are materialised, in the same two products:
the prefix on its own, and the suffixes as rows of a rectangle behind it. Queries, keys and values
come in one tensor, so that one gather lays them out and one brings their gradients back.
"""

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from exp.data.batch import Segments
from exp.model.attention import causal_mask


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of one layer's attention.

    Attributes:
        queries: Query heads; a multiple of `keys`.
        keys: Key heads, and as many value heads.
        size: Channels of a head.
        scaling: Factor of the scores.
    """

    queries: int
    keys: int
    size: int
    scaling: float

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.queries // self.keys

    @property
    def joint(self) -> int:
        """Heads of all three kinds, as they lie in one row."""
        return self.queries + 2 * self.keys


@dataclass(frozen=True, slots=True)
class Stream:
    """How a stream is laid out for all layers of one forward.

    Attributes:
        prefix: Tokens that all suffixes see.
        num_suffixes: Rows of the rectangle in which suffixes are laid out.
        longest: Its width, tokens of the longest suffix.
        rows: (suffixes * longest,) index into the stream.
        kept: (tokens behind the prefix,) index into `rows`.
        hidden: (group * longest, prefix + longest), 0 where a query sees a key, else -inf.
        hidden_in_prefix: (group * prefix, prefix), the same within the prefix.
        cos: (tokens, 1, half a head), of the rotary embedding.
        sin: Of the same shape.
    """

    prefix: int
    num_suffixes: int
    longest: int
    rows: Tensor
    kept: Tensor
    hidden: Tensor
    hidden_in_prefix: Tensor
    cos: Tensor
    sin: Tensor


class Streams:
    """Lays out each stream once, when the first of its layers asks."""

    def __init__(self) -> None:
        self._cos: weakref.ref[Tensor] | None = None
        self._stream: Stream | None = None

    def __call__(
        self, segments: Segments, positions: tuple[Tensor, Tensor], heads: Heads
    ) -> Stream:
        """Return the layout of a stream.

        Args:
            segments: How it is cut.
            positions: Cosine and sine of the rotary embedding, (1, tokens, head size); the halves
                of a head turn by the same angles.
            heads: Those of a layer; all layers that ask have the same.
        """
        cos, sin = positions
        known = self._cos is not None and self._cos() is cos
        if not known or self._stream is None:
            num_suffixes, longest = segments.rows.shape
            prefix, half = segments.prefix_length, heads.size // 2
            self._stream = Stream(
                prefix=prefix,
                num_suffixes=num_suffixes,
                longest=longest,
                rows=segments.rows.reshape(-1),
                kept=segments.kept,
                hidden=causal_mask(longest, prefix, heads.group, cos),
                hidden_in_prefix=causal_mask(prefix, 0, heads.group, cos),
                cos=cos[0, :, None, :half],
                sin=sin[0, :, None, :half],
            )
            self._cos = weakref.ref(cos)
        return self._stream


def rotate_(joint: Tensor, stream: Stream, heads: Heads, back: bool = False) -> None:
    """Turn queries and keys by their positions, in place, rounding where transformers rounds.

    Args:
        joint: (tokens, joint heads, head size).
        stream: Has the angles.
        heads: How `joint` is divided.
        back: Turn the other way, as their gradients are.
    """
    turned = joint[:, : heads.queries + heads.keys]
    first, second = turned.chunk(2, dim=-1)
    crossed = first * stream.sin
    onto_first, onto_second = (torch.add, torch.sub) if back else (torch.sub, torch.add)
    onto_first(first * stream.cos, second * stream.sin, out=first)
    onto_second(second * stream.cos, crossed, out=second)


Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Scaled queries, keys with values, and weights of the suffixes; queries and weights of the prefix,
empty without one."""


def attend(joint: Tensor, heads: Heads, stream: Stream) -> tuple[Tensor, Operands]:
    """Attend within a stream.

    Args:
        joint: (tokens, joint heads, head size): queries, keys, values, the former two turned.
        heads: How it is divided.
        stream: How the stream is laid out.

    Returns:
        (tokens, query heads * head size), and what `attend_backward` needs.
    """
    prefix, num, longest = stream.prefix, stream.num_suffixes, stream.longest
    keys, group, size = heads.keys, heads.group, heads.size
    seen = prefix + longest
    attended = joint.new_empty(len(joint), heads.queries * size)
    laid = joint.index_select(0, stream.rows).view(num, longest, heads.joint, size)
    queries = joint.new_empty(num, keys, group, longest, size)
    torch.mul(_grouped(laid[:, :, : heads.queries], heads), heads.scaling, out=queries)
    both = joint.new_empty(2, num, keys, seen, size)
    both[:, :, :, prefix:] = _keys_and_values(laid[:, :, heads.queries :], heads)
    prefix_queries = joint.new_empty(keys, group, prefix, size)
    prefix_weights = joint.new_empty(0)
    if prefix:
        head = joint[None, :prefix]
        both[:, :, :, :prefix] = _keys_and_values(head[:, :, heads.queries :], heads)
        torch.mul(
            _grouped(head[:, :, : heads.queries], heads)[0], heads.scaling, out=prefix_queries
        )
        own = both[:, 0, :, :prefix]
        prefix_weights, result = _attend(prefix_queries, own, stream.hidden_in_prefix)
        attended[:prefix] = _by_token(result.view(1, keys, group, prefix, size))
    weights, result = _attend(queries, both.view(2, num * keys, seen, size), stream.hidden)
    by_token = _by_token(result.view(num, keys, group, longest, size))
    end = prefix + len(stream.kept)
    torch.index_select(by_token, 0, stream.kept, out=attended[prefix:end])
    attended[end:] = 0  # tokens that fill the stream up
    return attended, (queries, both, weights, prefix_queries, prefix_weights)


def attend_backward(gradient: Tensor, operands: Operands, heads: Heads, stream: Stream) -> Tensor:
    """Return the gradient of `joint`, (tokens, joint heads, head size).

    Args:
        gradient: (tokens, query heads * head size).
        operands: What `attend` handed out.
        heads: As there.
        stream: As there.
    """
    queries, both, weights, prefix_queries, prefix_weights = operands
    prefix, num, longest = stream.prefix, stream.num_suffixes, stream.longest
    keys, size = heads.keys, heads.size
    seen = prefix + longest
    laid = gradient.new_zeros(num * longest, heads.queries * size)
    end = prefix + len(stream.kept)
    laid.index_copy_(0, stream.kept, gradient[prefix:end])
    grouped = _grouped(laid.view(num, longest, heads.queries, size), heads).contiguous()
    of_queries, of_both = _attend_backward(
        grouped, queries, both.view(2, num * keys, seen, size), weights
    )
    of_both = of_both.view(2, num, keys, seen, size)
    # What the rectangle has beyond the stream has no gradient: nothing saw it.
    laid = gradient.new_empty(num, longest, heads.joint, size)
    _grouped(laid[:, :, : heads.queries], heads).copy_(of_queries.view_as(queries))
    laid[:, :, : heads.queries] *= heads.scaling
    _keys_and_values(laid[:, :, heads.queries :], heads).copy_(of_both[:, :, :, prefix:])
    of_joint = gradient.new_empty(len(gradient), heads.joint, size)
    laid = laid.view(num * longest, heads.joint, size)
    torch.index_select(laid, 0, stream.kept, out=of_joint[prefix:end])
    of_joint[end:] = 0
    if prefix:
        head = gradient[:prefix].view(1, prefix, heads.queries, size)
        of_queries, of_own = _attend_backward(
            _grouped(head, heads)[0].contiguous(),
            prefix_queries,
            both[:, 0, :, :prefix],
            prefix_weights,
        )
        of_own += of_both[:, :, :, :prefix].sum(1)
        head = of_joint[None, :prefix]
        _grouped(head[:, :, : heads.queries], heads)[0].copy_(of_queries.view_as(prefix_queries))
        of_joint[:prefix, : heads.queries] *= heads.scaling
        _keys_and_values(head[:, :, heads.queries :], heads).copy_(of_own.unsqueeze(1))
    return of_joint


def _grouped(by_token: Tensor, heads: Heads) -> Tensor:
    """View (rows, length, query heads, size) as (rows, key heads, group, length, size)."""
    return by_token.unflatten(2, (heads.keys, heads.group)).permute(0, 2, 3, 1, 4)


def _keys_and_values(by_token: Tensor, heads: Heads) -> Tensor:
    """View (rows, length, 2 * key heads, size) as (2, rows, key heads, length, size)."""
    return by_token.unflatten(2, (2, heads.keys)).permute(2, 0, 3, 1, 4)


def _by_token(grouped: Tensor) -> Tensor:
    """Lay (rows, key heads, group, length, size) out as (rows * length, query heads * size)."""
    rows, keys, group, length, size = grouped.shape
    return grouped.permute(0, 3, 1, 2, 4).reshape(rows * length, keys * group * size)


def _attend(queries: Tensor, both: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return (heads, queries, keys) weights and (heads, queries, size) results.

    Query heads that share a key head are rows of one product, so keys are never repeated.
    """
    keys, values = both[0], both[1]
    folded = queries.view(len(keys), -1, queries.shape[-1])
    weights = torch.softmax(torch.baddbmm(hidden, folded, keys.transpose(1, 2)), dim=-1)
    return weights, torch.bmm(weights, values)


def _attend_backward(
    gradient: Tensor, queries: Tensor, both: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of scaled queries, and of keys and values in one tensor."""
    keys, values = both[0], both[1]
    folded = queries.view(len(keys), -1, queries.shape[-1])
    gradient = gradient.view_as(folded)
    of_both = gradient.new_empty(both.shape)
    torch.bmm(weights.transpose(1, 2), gradient, out=of_both[1])
    of_scores = torch.bmm(gradient, values.transpose(1, 2))  # of the weights, up to here
    softmax_backward = torch.ops.aten._softmax_backward_data.out
    softmax_backward(of_scores, weights, -1, weights.dtype, grad_input=of_scores)
    torch.bmm(of_scores.transpose(1, 2), folded, out=of_both[0])
    return torch.bmm(of_scores, keys), of_both
