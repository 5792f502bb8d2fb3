import time
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.config.schema import Layout, LossOn, Pacing
from exp.data.curriculum import Curriculum
from exp.data.draws import draw_by_weight
from exp.data.plan import BatchPlan, count_labels
from exp.errors import ConfigError


def plan(lengths, **changes):
    lengths = np.asarray(lengths, dtype=np.int64)
    settings = {
        "lengths": lengths,
        "num_labels": lengths // 2 + 1,
        "shared_tokens": 3,
        "layout": Layout.shared_prefix,
        "batch_size": 4,
        "micro_batch_tokens": 64,
        "micro_batch_size": None,
        "epochs": 1.0,
        "max_steps": None,
        "seed": 0,
    }
    return BatchPlan(**{**settings, **changes})


def members(step):
    return [row for part in step.micro_batches for row in part]


def steps(of):
    return [of.step(number) for number in range(of.num_steps)]


LENGTHS = st.lists(st.integers(4, 40), min_size=1, max_size=80)
BATCH_SIZES = st.integers(1, 9)
LAYOUTS = st.sampled_from(Layout)


@given(LENGTHS, BATCH_SIZES, LAYOUTS, st.integers(1, 3))
def test_every_example_comes_exactly_once_per_epoch(lengths, batch_size, layout, epochs):
    of = plan(lengths, batch_size=batch_size, layout=layout, epochs=float(epochs))
    seen = Counter((step.epoch, row) for step in steps(of) for row in members(step))
    assert seen == Counter((epoch, row) for epoch in range(epochs) for row in range(len(lengths)))


@given(LENGTHS, BATCH_SIZES, LAYOUTS, st.integers(1, 200), st.none() | st.integers(1, 4))
def test_the_budget_of_a_forward_does_not_change_which_examples_meet(
    lengths, batch_size, layout, tokens, size
):
    one = plan(lengths, batch_size=batch_size, epochs=2.0)
    other = plan(
        lengths,
        batch_size=batch_size,
        epochs=2.0,
        layout=layout,
        micro_batch_tokens=tokens,
        micro_batch_size=size,
    )
    for left, right in zip(steps(one), steps(other), strict=True):
        assert sorted(members(left)) == sorted(members(right))
        assert (left.num_labels, left.num_examples) == (right.num_labels, right.num_examples)


@given(LENGTHS, BATCH_SIZES, LAYOUTS, st.integers(1, 200), st.none() | st.integers(1, 4))
def test_forwards_stay_within_their_budget(lengths, batch_size, layout, tokens, size):
    of = plan(
        lengths,
        batch_size=batch_size,
        layout=layout,
        micro_batch_tokens=tokens,
        micro_batch_size=size,
    )
    for step in steps(of):
        for part in step.micro_batches:
            own = [lengths[row] for row in part]
            computed = {
                Layout.padded: max(own) * len(own),
                Layout.packed: sum(own),
                Layout.shared_prefix: 3 + sum(length - 3 for length in own),
            }[layout]
            assert computed <= tokens or len(part) == 1
            assert size is None or len(part) <= size


@given(LENGTHS, BATCH_SIZES, st.integers(1, 4))
def test_ranks_divide_each_step_among_them(lengths, batch_size, world_size):
    whole = plan(lengths, batch_size=batch_size)
    parts = [
        plan(lengths, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for number, step in enumerate(steps(whole)):
        shares = [part.step(number) for part in parts]
        assert sorted(row for share in shares for row in members(share)) == sorted(members(step))
        sizes = [len(members(share)) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        for share in shares:
            assert (share.num_labels, share.num_examples) == (step.num_labels, step.num_examples)


@given(LENGTHS, BATCH_SIZES, st.randoms(use_true_random=False))
def test_a_step_is_the_same_whatever_was_asked_before(lengths, batch_size, random):
    unbroken = plan(lengths, batch_size=batch_size, epochs=3.0)
    expected = steps(unbroken)
    numbers = list(range(unbroken.num_steps))
    random.shuffle(numbers)
    resumed = plan(lengths, batch_size=batch_size, epochs=3.0)
    assert {number: resumed.step(number) for number in numbers} == dict(enumerate(expected))


@given(LENGTHS, BATCH_SIZES)
@pytest.mark.thorough
def test_the_labels_of_a_step_are_counted_over_all_its_examples(lengths, batch_size):
    of = plan(lengths, batch_size=batch_size)
    for step in steps(of):
        assert step.num_labels == sum(lengths[row] // 2 + 1 for row in members(step))
        assert step.num_examples == len(members(step))


def test_epochs_and_seeds_have_orders_of_their_own():
    one = plan(range(4, 44), epochs=2.0)
    first, second = steps(one)[:10], steps(one)[10:]
    assert [members(step) for step in first] != [members(step) for step in second]
    other = plan(range(4, 44), epochs=1.0, seed=1)
    assert [members(step) for step in first] != [members(step) for step in steps(other)]


def test_which_examples_meet_differs_from_epoch_to_epoch():
    lengths = np.random.default_rng(0).integers(4, 400, size=2000)
    of = plan(lengths, epochs=2.0)
    met = [{frozenset(members(step)) for step in steps(of) if step.epoch == e} for e in (0, 1)]
    assert len(met[0] & met[1]) < 0.01 * len(met[0])


def test_examples_of_like_length_meet():
    lengths = np.random.default_rng(0).integers(4, 400, size=2000)
    of = plan(lengths, batch_size=16, micro_batch_tokens=10**9, layout=Layout.padded)
    computed = sum(max(lengths[row] for row in members(step)) * 16 for step in steps(of))
    shuffled = lengths[np.random.default_rng(1).permutation(2000)].reshape(-1, 16)
    assert computed < 1.05 * lengths.sum()
    assert 16 * shuffled.max(1).sum() > 1.7 * lengths.sum()


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"),
    [(1.0, None, 5), (2.0, None, 10), (0.5, None, 2), (1.3, None, 6), (0.01, None, 1),
     (2.0, 3, 3), (0.4, 9, 2)],
)  # fmt: skip
def test_a_run_ends_at_epochs_or_steps_whichever_comes_first(epochs, max_steps, expected):
    assert plan([5] * 18, epochs=epochs, max_steps=max_steps).num_steps == expected


def test_a_split_without_rows_is_refused():
    with pytest.raises(ConfigError, match="no rows"):
        plan([])


def test_the_last_step_of_an_epoch_takes_what_is_left():
    of = plan([5] * 6, epochs=1.0)
    assert sorted(step.num_examples for step in steps(of)) == [2, 4]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=9))
def test_labels_are_the_completion_or_all_tokens_but_the_first(parts):
    lengths = np.array([prompt + completion for prompt, completion in parts])
    completions = np.array([completion for _, completion in parts])
    assert count_labels(lengths, completions, LossOn.completion).tolist() == completions.tolist()
    assert count_labels(lengths, completions, LossOn.text).tolist() == (lengths - 1).tolist()


@pytest.mark.thorough
def test_a_million_rows_are_planned_in_a_second_and_little_memory():
    lengths = np.random.default_rng(0).integers(4, 400, size=1_000_000)
    of = plan(lengths, batch_size=16, micro_batch_tokens=2048)
    tracemalloc.start()
    start = time.process_time()
    step = of.step(31_337)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(members(step)) == 16
    assert seconds < 3
    assert peak < 64 * 2**20
    start = time.process_time()
    for number in range(1000):
        of.step(number)
    assert time.process_time() - start < 0.5


PACINGS = st.builds(
    Curriculum,
    difficulty=st.just(None),
    pacing=st.sampled_from(Pacing),
    start=st.floats(0.05, 1),
    end=st.floats(0, 1),
)


def paced(curriculum, lengths):
    """The curriculum, with difficulties that have nothing to do with the lengths."""
    difficulty = np.random.default_rng(5).integers(0, 10, len(lengths)).astype(float)
    return replace(curriculum, difficulty=difficulty)


@given(LENGTHS, BATCH_SIZES, PACINGS, st.integers(1, 3))
def test_with_a_curriculum_every_example_still_comes_once_per_epoch(
    lengths, batch_size, curriculum, epochs
):
    curriculum = paced(curriculum, lengths)
    of = plan(lengths, batch_size=batch_size, curriculum=curriculum, epochs=float(epochs))
    seen = Counter((step.epoch, row) for step in steps(of) for row in members(step))
    assert seen == Counter((epoch, row) for epoch in range(epochs) for row in range(len(lengths)))


@given(LENGTHS, BATCH_SIZES, PACINGS, st.randoms(use_true_random=False))
@pytest.mark.thorough
def test_with_a_curriculum_a_step_is_the_same_whatever_was_asked_before(
    lengths, batch_size, curriculum, random
):
    settings = {"batch_size": batch_size, "curriculum": paced(curriculum, lengths), "epochs": 3.0}
    expected = steps(plan(lengths, **settings))
    numbers = list(range(len(expected)))
    random.shuffle(numbers)
    resumed = plan(lengths, **settings)
    assert {number: resumed.step(number) for number in numbers} == dict(enumerate(expected))


def test_easy_examples_come_first_and_all_mix_once_the_pace_is_over():
    lengths = np.random.default_rng(0).integers(4, 400, size=4000)
    difficulty = np.random.default_rng(1).permutation(4000).astype(float)
    curriculum = Curriculum(difficulty, Pacing.linear, 0.1, 1 / 3)
    of = plan(lengths, batch_size=8, epochs=3.0, curriculum=curriculum)
    means = [np.mean([difficulty[row] for row in members(step)]) for step in steps(of)]
    first = np.mean(np.reshape(means[:500], (5, 100)), axis=1)
    second, third = means[500:1000], means[1000:]
    assert all(np.diff(first) > 300)
    assert abs(np.mean(second[:100]) - 2000) < 150
    assert abs(np.mean(third[:100]) - 2000) < 150
    # Nothing comes before it is available, as long as the epoch has enough that is.
    for number in range(186):
        most = 4000 * min(1, 0.1 + 0.9 * number / 500)
        assert max(difficulty[row] for row in members(of.step(number))) <= most + 1


def test_behind_the_pace_the_order_is_the_plain_shuffle():
    curriculum = Curriculum(np.arange(80.0), Pacing.root, 0.2, 0.5)
    of, plain = plan([5] * 80, epochs=2.0, curriculum=curriculum), plan([5] * 80, epochs=2.0)
    assert steps(of)[20:] == steps(plain)[20:]
    assert steps(of)[:20] != steps(plain)[:20]


def test_with_a_curriculum_examples_of_like_length_still_meet():
    lengths = np.random.default_rng(0).integers(4, 400, size=8000)
    curriculum = Curriculum(np.random.default_rng(1).random(8000), Pacing.root, 0.2, 1.0)
    of = plan(
        lengths,
        batch_size=8,
        micro_batch_tokens=10**9,
        layout=Layout.padded,
        curriculum=curriculum,
    )
    computed = sum(max(lengths[row] for row in members(step)) * 8 for step in steps(of))
    assert computed < 1.1 * lengths.sum()


@given(LENGTHS, BATCH_SIZES, PACINGS | st.none(), st.integers(1, 4))
def test_drawn_examples_come_as_often_as_they_are_drawn(lengths, batch_size, curriculum, epochs):
    values = np.unique(np.arange(len(lengths)) ** 2 % 7, return_inverse=True)[1]
    sources = np.zeros(len(lengths), dtype=np.int16)
    draws = draw_by_weight(sources, None, values, 3, seed=1)
    curriculum = curriculum and paced(curriculum, lengths)
    of = plan(
        lengths, batch_size=batch_size, draws=draws, curriculum=curriculum, epochs=float(epochs)
    )
    seen = Counter((step.epoch, row) for step in steps(of) for row in members(step))
    expected = Counter((epoch, int(row)) for epoch in range(epochs) for row in draws.epoch(epoch))
    assert seen == expected


@pytest.mark.thorough
def test_a_paced_epoch_of_a_million_rows_is_planned_in_seconds():
    lengths = np.random.default_rng(0).integers(4, 400, size=1_000_000)
    curriculum = Curriculum(lengths.astype(float), Pacing.root, 0.2, 1.0)
    of = plan(lengths, batch_size=16, micro_batch_tokens=2048, curriculum=curriculum)
    start = time.process_time()
    assert len(members(of.step(31_337))) == 16
    assert time.process_time() - start < 4


def test_a_plan_that_was_changed_has_an_order_of_its_own():
    one = plan(range(5, 45))
    one.step(0)
    assert steps(replace(one, seed=7)) == steps(plan(range(5, 45), seed=7))
