"""Measure all rungs in turns, each time in a fresh process, so that drift meets them all alike."""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context

from exp.generation.benchmark.ladder import Rung
from exp.generation.benchmark.measure import Job, Measurement, NotMeasured, measure_rung
from exp.generation.row import Completion

Outcome = Measurement | NotMeasured


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the repetitions."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one rung.

    Attributes:
        num_rows: Rows that it decoded.
        rows_per_second: Rows decoded.
        tokens_per_second: Tokens of completions.
        peak_bytes: Peak memory; None where the system does not say.
        num_cut: Rows that reached the token limit.
        same: Share of its rows whose token ids are those of the reference, of rows that both have;
            below fp32, roundings decide near ties.
    """

    rung: Rung
    num_rows: int
    rows_per_second: Spread
    tokens_per_second: Spread
    peak_bytes: Spread | None
    num_cut: int
    same: float | None


def measure_in_turns(
    job: Job, rungs: Sequence[Rung], repetitions: int, show: Callable[[int, Rung, Outcome], None]
) -> tuple[dict[Rung, list[Measurement]], dict[Rung, str]]:
    """Measure every rung `repetitions` times; one that cannot be measured is not tried again.

    Returns:
        The measurements of each rung, and why others were not measured.
    """
    measured: dict[Rung, list[Measurement]] = {}
    not_measured: dict[Rung, str] = {}
    for repetition in range(repetitions):
        for rung in rungs:
            if rung in not_measured:
                continue
            outcome = _in_fresh_process(job, rung)
            show(repetition, rung, outcome)
            if isinstance(outcome, NotMeasured):
                not_measured[rung] = outcome.reason
                measured.pop(rung, None)
            else:
                measured.setdefault(rung, []).append(outcome)
    return measured, not_measured


def _in_fresh_process(job: Job, rung: Rung) -> Outcome:
    # A server that has imported everything forks the processes: as fresh as new ones, without
    # seconds of imports each. The parent itself must not fork once it has threads or CUDA.
    forks = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([measure_rung.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure_rung, job, rung).result()
        except BrokenProcessPool:
            return NotMeasured("its process was killed, most likely for want of memory")


def summarise(measured: dict[Rung, list[Measurement]], reference: str) -> list[Summary]:
    """Summarise the rungs; `reference` names the one whose token ids the others are held to."""
    expected: dict[int, Completion] = next(
        (done[0].completions for rung, done in measured.items() if rung.name == reference), {}
    )
    return [_summarise(rung, done, expected) for rung, done in measured.items()]


def _summarise(rung: Rung, done: Sequence[Measurement], expected: dict[int, Completion]) -> Summary:
    completions = done[0].completions
    tokens = sum(len(one.token_ids) for one in completions.values())
    peaks = [one.peak_bytes for one in done if one.peak_bytes is not None]
    both = completions.keys() & expected.keys()
    return Summary(
        rung=rung,
        num_rows=len(completions),
        rows_per_second=spread([len(completions) / one.seconds for one in done]),
        tokens_per_second=spread([tokens / one.seconds for one in done]),
        peak_bytes=spread(peaks) if peaks else None,
        num_cut=sum(one.finish_reason == "length" for one in completions.values()),
        same=sum(completions[row] == expected[row] for row in both) / len(both) if both else None,
    )


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
