import math
from dataclasses import replace

import pytest

from exp.config.schema import Precision
from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import Measurement
from exp.training.benchmark.spread import Spread
from exp.training.benchmark.summary import disagreements, summarise
from exp.training.benchmark.turns import Turns

FIRST, SECOND = LADDER[:2]


def one(seconds, **changes):
    whole = Measurement(seconds, 10, 1000, 4e9, 2**20, loss=2.0, gradient_norm=1.0)
    return replace(whole, **changes)


TURNS = Turns(
    gemm_peaks=(8e9, 8e9, 4e9),
    measured={FIRST: (one(4.0), one(2.0), one(8.0)), SECOND: (one(1.0), one(1.0), one(2.0))},
    not_measured={},
)


def test_rates_are_over_the_repetitions():
    first = summarise(TURNS, LADDER)[0]
    assert first.examples_per_second == Spread(2.5, 1.25, 5.0)
    assert first.tokens_per_second.median == 250
    assert first.useful_flops_per_second.median == 1e9


def test_ratios_pair_what_was_measured_one_after_the_other():
    assert summarise(TURNS, LADDER)[1].ratio == Spread(4.0, 2.0, 4.0)


def test_the_share_of_the_peak_is_that_of_its_own_repetition():
    assert summarise(TURNS, LADDER)[1].share_of_peak == Spread(0.5, 0.5, 0.5)


def test_without_the_first_rung_there_are_no_ratios():
    turns = replace(TURNS, measured={SECOND: TURNS.measured[SECOND]}, not_measured={FIRST: "x"})
    (summary,) = summarise(turns, LADDER)
    assert summary.ratio is None


def test_memory_that_is_not_known_is_left_out():
    turns = replace(TURNS, measured={FIRST: (one(1.0, peak_bytes=None),) * 3})
    assert summarise(turns, LADDER)[0].peak_bytes is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, 0),
        ({"loss": 2.0001}, 0),
        ({"loss": 2.001}, 1),
        ({"loss": math.nan}, 1),
        ({"gradient_norm": 1.01}, 1),
        ({"loss": 3.0, "gradient_norm": 2.0}, 2),
    ],
)
def test_rungs_that_differ_are_named(changes, found):
    turns = replace(TURNS, measured={FIRST: (one(1.0),) * 3, SECOND: (one(1.0, **changes),) * 3})
    named = disagreements(summarise(turns, LADDER), Precision.fp32, of_text=False)
    assert len(named) == found
    assert all(SECOND.title in line for line in named)


def test_sixteen_bits_may_differ_more():
    turns = replace(TURNS, measured={FIRST: (one(1.0),) * 3, SECOND: (one(1.0, loss=2.01),) * 3})
    assert disagreements(summarise(turns, LADDER), Precision.bf16, of_text=True) == []


def test_gradients_of_random_ids_in_sixteen_bits_are_not_compared():
    far = (one(1.0, gradient_norm=5.0),) * 3
    summaries = summarise(replace(TURNS, measured={FIRST: (one(1.0),) * 3, SECOND: far}), LADDER)
    assert len(disagreements(summaries, Precision.bf16, of_text=True)) == 1
    assert disagreements(summaries, Precision.bf16, of_text=False) == []
