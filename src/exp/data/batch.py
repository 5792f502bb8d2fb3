"""One micro-batch as tensors: token ids, who may attend to whom, and which rows carry loss.

Three layouts fill the same Batch. `padded` is the plain one: an example per row, padded on the
right. `packed` and `shared_prefix` put all tokens into a single row, the stream, so that every
linear layer and norm runs over real tokens only::

    shared_prefix   [prefix | suffix 1 | suffix 2 | ... ]   the prefix is computed once
    packed          [example 1 | example 2 | ... ]          a stream whose prefix is empty

The attention over a stream is in `model/attention.py`. Causality makes the sharing exact: no token
of the prefix sees a suffix, and no suffix sees another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from exp.config.schema import Layout, LossOn
from exp.records import Rendered

SHORTEST_SHARED_PREFIX = 16
"""Below this many tokens a shared prefix costs more in gathers than it saves in arithmetic."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the parts of a stream lie.

    Attributes:
        prefix_length: Tokens at the start of the stream that every suffix attends to.
        rows: (suffixes, longest) index into the stream; rows shorter than the longest repeat their
            last token, which no real token sees, since the attention is causal.
        kept: (tokens behind the prefix,) index into the flattened `rows`: where each stream token
            sits in the rectangle.
    """

    prefix_length: int
    rows: Tensor
    kept: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Segments":
        """Copy both tensors to a device; called where a model is spread over several."""
        rows = self.rows.to(device, non_blocking=non_blocking)
        return replace(self, rows=rows, kept=self.kept.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward needs.

    Attributes:
        input_ids: (1, tokens) for a stream, (examples, longest) for padded rows.
        position_ids: Of the shape of `input_ids`; restart with each example, behind the prefix.
        attention_mask: (examples, longest), 1 at real tokens; None for a stream.
        segments: How the stream is cut; None for padded rows.
        label_rows: (labels,) index into the flattened tokens: rows whose next token is a label.
        labels: (labels,) the token ids to predict there.
        label_counts: (labels,) how many examples have the label, where loss on all tokens meets a
            shared prefix; None where each label is one example's.
        example_ids: One id per example.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    segments: Segments | None
    label_rows: Tensor
    labels: Tensor
    example_ids: tuple[str, ...]
    label_counts: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Copy all tensors to a device, without waiting where memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Called by DataLoader, so that copies to a GPU can overlap with arithmetic."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: Any) -> "Batch":
        segments = self.segments
        if segments is not None:
            segments = replace(segments, rows=move(segments.rows), kept=move(segments.kept))
        return replace(
            self,
            input_ids=move(self.input_ids),
            position_ids=move(self.position_ids),
            attention_mask=None if self.attention_mask is None else move(self.attention_mask),
            segments=segments,
            label_rows=move(self.label_rows),
            labels=move(self.labels),
            label_counts=None if self.label_counts is None else move(self.label_counts),
        )


def collate(
    rendered: Sequence[Rendered], example_ids: Sequence[str], layout: Layout, loss: LossOn
) -> Batch:
    """Lay out rendered examples as one Batch.

    Args:
        rendered: Token ids of the examples; completions end with the end-of-turn token.
        example_ids: Their ids, in the same order.
        layout: Which layout to fill.
        loss: Whether completions only, or all tokens but the first carry loss.
    """
    sequences = [[*row.prompt_ids, *row.completion_ids] for row in rendered]
    first_labels = [len(row.prompt_ids) if loss is LossOn.completion else 1 for row in rendered]
    if layout is Layout.padded:
        return _padded(sequences, first_labels, tuple(example_ids))
    prefix_length = 0
    if layout is Layout.shared_prefix:
        # The last prompt token predicts the first label, so it stays in the suffix: a prefix token
        # may have one successor only, and at the branch the successors differ.
        longest = shared_prefix_length([row.prompt_ids for row in rendered])
        longest = min(longest, min(len(row.prompt_ids) for row in rendered) - 1)
        if longest >= SHORTEST_SHARED_PREFIX and len(rendered) > 1:
            prefix_length = longest
    return _stream(sequences, first_labels, prefix_length, tuple(example_ids))


def shared_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Count the leading tokens that all prompts have in common."""
    # Lexicographically all others lie between these two; a tuple is its own key, without a copy.
    first, last = min(prompts, key=tuple), max(prompts, key=tuple)
    for position, (left, right) in enumerate(zip(first, last, strict=False)):
        if left != right:
            return position
    return min(len(first), len(last))


def stream_tokens(prefix_length: int, lengths: Sequence[int]) -> int:
    """Count the tokens of a stream: the prefix once, and what each example has behind it."""
    return prefix_length + sum(length - prefix_length for length in lengths)


def _padded(
    sequences: list[list[int]], first_labels: list[int], example_ids: tuple[str, ...]
) -> Batch:
    longest = max(map(len, sequences))
    shape = (len(sequences), longest)
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    label_rows: list[int] = []
    labels: list[int] = []
    for row, (ids, first) in enumerate(zip(sequences, first_labels, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        label_rows.extend(range(row * longest + first - 1, row * longest + len(ids) - 1))
        labels.extend(ids[first:])
    return Batch(
        input_ids=input_ids,
        position_ids=torch.arange(longest).expand(shape).contiguous(),
        attention_mask=attention_mask,
        segments=None,
        label_rows=torch.tensor(label_rows),
        labels=torch.tensor(labels),
        example_ids=example_ids,
    )


def _stream(
    sequences: list[list[int]],
    first_labels: list[int],
    prefix_length: int,
    example_ids: tuple[str, ...],
) -> Batch:
    stream = list(sequences[0][:prefix_length])
    positions = list(range(prefix_length))
    # With loss on the text, tokens of the prefix are labels of all examples alike. What follows its
    # last token is not: that row is listed once per example.
    shared = range(first_labels[0], prefix_length)
    label_rows = [position - 1 for position in shared]
    labels = [stream[position] for position in shared]
    longest = max(map(len, sequences)) - prefix_length
    rows = torch.empty((len(sequences), longest), dtype=torch.long)
    kept: list[int] = []
    for index, (ids, first) in enumerate(zip(sequences, first_labels, strict=True)):
        start, length = len(stream), len(ids) - prefix_length
        stream.extend(ids[prefix_length:])
        positions.extend(range(prefix_length, len(ids)))
        rows[index] = torch.arange(start, start + longest).clamp_(max=start + length - 1)
        kept.extend(range(index * longest, index * longest + length))
        shift = start - prefix_length
        first = max(first, prefix_length)
        for position in range(first - 1, len(ids) - 1):
            label_rows.append(position if position < prefix_length else position + shift)
        labels.extend(ids[first:])
    counts = torch.ones(len(labels), dtype=torch.long)
    counts[: len(shared)] = len(sequences)
    return Batch(
        input_ids=torch.tensor([stream]),
        position_ids=torch.tensor([positions]),
        attention_mask=None,
        segments=Segments(prefix_length, rows, torch.tensor(kept)),
        label_rows=torch.tensor(label_rows),
        labels=torch.tensor(labels),
        example_ids=example_ids,
        label_counts=counts if shared else None,
    )
