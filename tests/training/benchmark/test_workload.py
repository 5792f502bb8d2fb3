from dataclasses import replace

import numpy as np
import pytest

from exp.config.schema import Layout
from exp.data.batch import shared_prefix_length
from exp.training.benchmark.workload import in_memory, ladder_plan, sample_rows, synthetic_rows

STORE = synthetic_rows(40, 30, 20, 10, vocab_size=500, seed=1)


def plan(length_aware):
    return ladder_plan(STORE, 8, 3, Layout.padded, length_aware)


def test_all_prompts_share_the_instruction_and_nothing_more():
    prompts = [STORE[row].prompt_ids for row in range(len(STORE))]
    assert shared_prefix_length(prompts) == 30


def test_lengths_are_ragged_around_their_means():
    inputs = STORE.lengths - 30 - STORE.completion_lengths
    assert inputs.min() >= 10
    assert inputs.max() <= 30
    assert abs(inputs.mean() - 20) < 3
    assert abs(STORE.completion_lengths.mean() - 10) < 2
    assert len(set(inputs)) > 5


def test_ids_lie_within_the_vocabulary():
    assert STORE.ids.min() >= 0
    assert STORE.ids.max() < 500


def test_rows_follow_from_the_seed():
    same, other = (synthetic_rows(40, 30, 20, 10, vocab_size=500, seed=seed) for seed in (1, 2))
    assert np.array_equal(same.ids, STORE.ids)
    assert not np.array_equal(other.ids[:100], STORE.ids[:100])


@pytest.mark.parametrize("mean", [1, 2, 3])
def test_no_completion_is_empty(mean):
    assert synthetic_rows(50, 0, 1, mean, vocab_size=9, seed=0).completion_lengths.min() >= 1


def test_a_store_in_memory_gives_back_what_was_put_in():
    rows = [STORE[row] for row in (3, 0, 7)]
    store = in_memory(rows, STORE.head_ids)
    assert [store[row] for row in range(3)] == rows


def test_a_sample_repeats_only_when_the_split_is_used_up():
    sampled = sample_rows(STORE, range(10), 25, seed=0)
    rows = [sampled[row] for row in range(25)]
    assert {STORE.lengths[row] for row in range(10)} >= set(sampled.lengths)
    assert len(set(rows[:10])) == 10
    assert rows[10:20] == rows[:10]


def test_every_step_has_the_same_examples_sorted_or_not():
    for number in range(5):
        steps = [plan(length_aware).step(number) for length_aware in (False, True)]
        members = [sorted(row for batch in step.micro_batches for row in batch) for step in steps]
        assert members[0] == members[1] == list(range(number * 8, number * 8 + 8))
        assert steps[0].num_labels == steps[1].num_labels


def test_no_micro_batch_is_larger_than_asked():
    assert [len(batch) for batch in plan(True).step(0).micro_batches] == [3, 3, 2]


def test_length_aware_micro_batches_pad_less():
    def padded_tokens(of):
        batches = [batch for number in range(5) for batch in of.step(number).micro_batches]
        return sum(len(batch) * STORE.lengths[list(batch)].max() for batch in batches)

    assert padded_tokens(plan(True)) < padded_tokens(plan(False))


def test_the_plan_ends_where_the_rows_end():
    assert plan(True).num_steps == 5
    assert replace(plan(True), max_steps=1).num_steps == 1
