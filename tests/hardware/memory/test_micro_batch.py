"""The largest forwards are found in the plan that training follows."""

from dataclasses import replace

import numpy as np
import pytest

from exp.config.schema import Layout, LossOn
from exp.data.batch import collate
from exp.data.plan import BatchPlan, count_labels
from exp.hardware.memory import micro_batch
from exp.hardware.memory.micro_batch import largest_forwards, measure
from exp.records import Rendered

HEAD = tuple(range(20))


def rows(count: int, seed: int = 0) -> list[Rendered]:
    random = np.random.default_rng(seed)
    return [
        Rendered(
            (*HEAD, *random.integers(100, 999, random.integers(1, 40)).tolist()),
            tuple(random.integers(100, 999, random.integers(1, 30)).tolist()),
        )
        for _ in range(count)
    ]


def plan_of(examples: list[Rendered], **changes: object) -> BatchPlan:
    completions = np.array([len(row.completion_ids) for row in examples])
    settings = {
        "lengths": np.array([len(row.prompt_ids) for row in examples]) + completions,
        "num_labels": completions,
        "shared_tokens": len(HEAD),
        "layout": Layout.shared_prefix,
        "batch_size": 8,
        "micro_batch_tokens": 150,
        "micro_batch_size": None,
        "epochs": 2.0,
        "max_steps": None,
        "seed": 0,
    }
    return BatchPlan(**settings | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LossOn)
@pytest.mark.parametrize("layout", Layout)
def test_a_forward_is_measured_as_it_is_laid_out(layout: Layout, loss: LossOn) -> None:
    examples = rows(5)
    plan = plan_of(examples, layout=layout)
    completions = np.array([len(row.completion_ids) for row in examples])
    plan = replace(plan, num_labels=count_labels(plan.lengths, completions, loss))
    measured = measure(plan, (0, 1, 2, 3, 4))
    batch = collate(examples, list("abcde"), layout, loss)
    assert measured.tokens == batch.input_ids.numel()
    assert measured.labels == len(batch.labels)
    if batch.segments is None:
        assert (measured.rows, measured.longest) == tuple(batch.input_ids.shape)
    else:
        assert measured.prefix == batch.segments.prefix_length
        assert (measured.rows, measured.longest) == tuple(batch.segments.rows.shape)


@pytest.mark.parametrize("layout", Layout)
def test_no_forward_of_the_run_exceeds_the_ones_found(layout: Layout) -> None:
    plan = plan_of(rows(100), layout=layout)
    found = [forward.batch for forward in largest_forwards(plan)]
    every = [
        measure(plan, members)
        for number in range(plan.num_steps)
        for members in plan.step(number).micro_batches
    ]
    for measured in ("tokens", "labels", "pairs"):
        largest = max(getattr(batch, measured) for batch in every)
        assert max(getattr(batch, measured) for batch in found) == largest


def test_a_forward_that_was_found_can_be_computed() -> None:
    plan = plan_of(rows(60))
    for forward in largest_forwards(plan):
        assert forward.step is not None
        step = plan.step(forward.step)
        assert forward.members in step.micro_batches
        assert forward.alone == (len(step.micro_batches) == 1)


def test_a_sample_of_a_long_run_is_bounded_by_its_longest_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(rows(200), micro_batch_tokens=10_000)
    largest = max(forward.batch.tokens for forward in largest_forwards(plan))
    monkeypatch.setattr(micro_batch, "MOST_STEPS", 3)
    assert max(forward.batch.tokens for forward in largest_forwards(plan)) >= largest


def test_every_rank_is_looked_at() -> None:
    plan = plan_of(rows(64), world_size=4, micro_batch_size=1)
    longest = int(plan.lengths.max())
    assert max(forward.batch.tokens for forward in largest_forwards(plan)) == longest
