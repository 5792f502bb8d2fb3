"""The layouts against slow plain references, on ragged examples."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.config.schema import Layout, LossOn
from exp.data.batch import (
    SHORTEST_SHARED_PREFIX,
    collate,
    shared_prefix_length,
    stream_tokens,
)
from exp.records import Rendered

STREAMS = (Layout.shared_prefix, Layout.packed)
IDS = st.integers(1, 50)


@st.composite
def ragged(draw):
    """Examples with a common opening of any length, short and long ones together."""
    opening = draw(st.lists(IDS, max_size=30))
    rows = draw(
        st.lists(
            st.tuples(
                st.lists(IDS, min_size=1, max_size=12), st.lists(IDS, min_size=1, max_size=6)
            ),
            min_size=1,
            max_size=6,
        )
    )
    return [Rendered((*opening, *own), tuple(completion)) for own, completion in rows]


EXAMPLES = ragged()
LOSSES = st.sampled_from(LossOn)


def name(rendered):
    return [f"row-{index}" for index in range(len(rendered))]


def expected_labels(rendered, loss):
    """(tokens that are known, next token) of every label, one example after the other."""
    pairs = []
    for row in rendered:
        ids = [*row.prompt_ids, *row.completion_ids]
        first = len(row.prompt_ids) if loss is LossOn.completion else 1
        pairs += [(tuple(ids[:position]), ids[position]) for position in range(first, len(ids))]
    return pairs


def visible_tokens(batch):
    """For every flattened token of a batch what a causal model has seen there, itself included."""
    if batch.segments is None:
        return [
            tuple(row[: end + 1]) for row in batch.input_ids.tolist() for end in range(len(row))
        ]
    stream = batch.input_ids[0].tolist()
    prefix = stream[: batch.segments.prefix_length]
    seen = {position: tuple(prefix[: position + 1]) for position in range(len(prefix))}
    flat = batch.segments.rows.flatten().tolist()
    longest = batch.segments.rows.shape[1]
    for place in batch.segments.kept.tolist():
        row = place // longest
        own = [stream[index] for index in flat[row * longest : place + 1]]
        assert flat[place] not in seen, "a token of the stream is in two places"
        seen[flat[place]] = (*prefix, *own)
    return [seen[index] for index in range(len(stream))]


def counts_of(batch):
    return [1] * len(batch.labels) if batch.label_counts is None else batch.label_counts.tolist()


@given(EXAMPLES, LOSSES, st.sampled_from(Layout))
def test_each_label_is_predicted_from_all_tokens_before_it(rendered, loss, layout):
    batch = collate(rendered, name(rendered), layout, loss)
    seen = visible_tokens(batch)
    pairs: Counter[object] = Counter()
    rows, labels = batch.label_rows.tolist(), batch.labels.tolist()
    for row, label, count in zip(rows, labels, counts_of(batch), strict=True):
        pairs[seen[row], label] += count
    assert pairs == Counter(expected_labels(rendered, loss))


@given(EXAMPLES, LOSSES)
def test_all_layouts_have_the_same_labels(rendered, loss):
    batches = [collate(rendered, name(rendered), layout, loss) for layout in Layout]
    labels = [np.repeat(batch.labels.numpy(), counts_of(batch)) for batch in batches]
    assert all(Counter(each.tolist()) == Counter(labels[0].tolist()) for each in labels)


@given(EXAMPLES)
def test_prompt_tokens_carry_no_loss(rendered):
    batch = collate(rendered, name(rendered), Layout.padded, LossOn.completion)
    assert batch.labels.tolist() == [token for row in rendered for token in row.completion_ids]


@given(EXAMPLES, st.sampled_from(Layout))
def test_positions_count_the_tokens_before(rendered, layout):
    batch = collate(rendered, name(rendered), layout, LossOn.completion)
    assert batch.position_ids.shape == batch.input_ids.shape
    positions = batch.position_ids.flatten().tolist()
    assert positions == [len(seen) - 1 for seen in visible_tokens(batch)]


@given(EXAMPLES, st.sampled_from(STREAMS))
def test_a_stream_holds_every_token_once_and_no_padding(rendered, layout):
    batch = collate(rendered, name(rendered), layout, LossOn.completion)
    prefix = batch.segments.prefix_length
    everything = Counter(token for row in rendered for token in row.prompt_ids[prefix:])
    everything += Counter(token for row in rendered for token in row.completion_ids)
    everything += Counter(rendered[0].prompt_ids[:prefix])
    assert Counter(batch.input_ids[0].tolist()) == everything
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rendered]
    assert batch.input_ids.numel() == stream_tokens(prefix, lengths)


@given(EXAMPLES)
def test_the_rectangle_repeats_a_rows_last_token(rendered):
    segments = collate(rendered, name(rendered), Layout.packed, LossOn.completion).segments
    rows, longest = segments.rows.shape
    for row in range(rows):
        kept = [
            place - row * longest for place in segments.kept.tolist() if place // longest == row
        ]
        assert kept == list(range(len(kept)))
        assert set(segments.rows[row, len(kept) :].tolist()) <= {int(segments.rows[row, kept[-1]])}


@given(EXAMPLES)
def test_padding_is_masked_and_nothing_else_is(rendered):
    batch = collate(rendered, name(rendered), Layout.padded, LossOn.completion)
    for row, ids, mask in zip(rendered, batch.input_ids, batch.attention_mask, strict=True):
        real = [*row.prompt_ids, *row.completion_ids]
        assert ids[: len(real)].tolist() == real
        assert mask.tolist() == [1] * len(real) + [0] * (len(ids) - len(real))


@given(st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=1, max_size=6))
def test_the_shared_prefix_is_the_longest_that_all_have(prompts):
    length = 0
    while all(len(prompt) > length for prompt in prompts) and (
        len({prompt[length] for prompt in prompts}) == 1
    ):
        length += 1
    assert shared_prefix_length(prompts) == length


def examples_with_prefix(length, count=2):
    return [Rendered((*range(100, 100 + length), row), (row, 99)) for row in range(1, count + 1)]


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        (examples_with_prefix(SHORTEST_SHARED_PREFIX), SHORTEST_SHARED_PREFIX),
        (examples_with_prefix(SHORTEST_SHARED_PREFIX - 1), 0),
        (examples_with_prefix(40, count=1), 0),
        # Prompts that are all the same still have a token of their own before the branch.
        ([Rendered(tuple(range(20)), (1,)), Rendered(tuple(range(20)), (2,))], 19),
    ],
)
def test_a_prefix_is_shared_where_that_saves_something(rendered, expected):
    batch = collate(rendered, name(rendered), Layout.shared_prefix, LossOn.completion)
    assert batch.segments.prefix_length == expected


def test_loss_on_the_text_lists_a_label_of_the_prefix_once_and_counts_it_for_every_example():
    rendered = examples_with_prefix(SHORTEST_SHARED_PREFIX, count=3)
    batch = collate(rendered, name(rendered), Layout.shared_prefix, LossOn.text)
    inside = batch.label_rows < SHORTEST_SHARED_PREFIX - 1
    assert batch.label_rows[inside].tolist() == list(range(SHORTEST_SHARED_PREFIX - 1))
    assert set(batch.label_counts[inside].tolist()) == {3}
    assert set(batch.label_counts[~inside].tolist()) == {1}
    num_labels = sum(len(row.prompt_ids) + len(row.completion_ids) - 1 for row in rendered)
    assert int(batch.label_counts.sum()) == num_labels


@pytest.mark.parametrize("layout", Layout)
def test_labels_of_completions_are_not_counted(layout):
    rendered = examples_with_prefix(SHORTEST_SHARED_PREFIX, count=3)
    assert collate(rendered, name(rendered), layout, LossOn.completion).label_counts is None


@settings(max_examples=20)
@given(EXAMPLES, LOSSES, st.sampled_from(Layout))
def test_a_batch_keeps_its_content_when_it_moves(rendered, loss, layout):
    batch = collate(rendered, name(rendered), layout, loss)
    moved = batch.to("meta")
    assert (moved.label_counts is None) == (batch.label_counts is None)
    assert moved.label_counts is None or moved.label_counts.device.type == "meta"
    assert moved.input_ids.device.type == moved.labels.device.type == "meta"
    assert moved.input_ids.shape == batch.input_ids.shape
    assert (moved.segments is None) == (batch.segments is None)
    if moved.segments is not None:
        assert moved.segments.rows.device.type == moved.segments.kept.device.type == "meta"
        assert moved.segments.prefix_length == batch.segments.prefix_length
    assert moved.example_ids == tuple(name(rendered))
    assert all(tensor.dtype == torch.long for tensor in (batch.input_ids, batch.label_rows))
