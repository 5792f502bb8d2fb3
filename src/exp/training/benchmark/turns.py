"""Measure all rungs in turns, each time in a fresh process, so that drift meets them all alike."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from typing import Any

from exp.training.benchmark.ladder import Rung
from exp.training.benchmark.measure import (
    Job,
    Measurement,
    NotMeasured,
    measure_gemm,
    measure_rung,
)

Show = Callable[[int, Rung, Measurement | NotMeasured], None]
"""Gets (repetition, rung, outcome) as soon as a measurement is done."""


@dataclass(frozen=True)
class Turns:
    """Everything that was measured.

    Attributes:
        gemm_peaks: FLOP/s, one per repetition.
        measured: Per rung one measurement per repetition; aligned, so that the i-th ones of two
            rungs were taken one after the other.
        not_measured: The other rungs, and why.
    """

    gemm_peaks: tuple[float, ...]
    measured: dict[Rung, tuple[Measurement, ...]]
    not_measured: dict[Rung, str]


def measure_in_turns(job: Job, rungs: Sequence[Rung], repetitions: int, show: Show) -> Turns:
    """Measure every rung `repetitions` times; one that cannot be measured is not tried again."""
    gemm_peaks: list[float] = []
    measured: dict[Rung, list[Measurement]] = {rung: [] for rung in rungs}
    not_measured: dict[Rung, str] = {}
    for repetition in range(repetitions):
        gemm_peaks.append(_in_fresh_process(measure_gemm, job))
        for rung in rungs:
            if rung in not_measured:
                continue
            try:
                outcome = _in_fresh_process(measure_rung, job, rung)
            except BrokenProcessPool:
                outcome = NotMeasured("its process was killed, most likely for want of memory")
            show(repetition, rung, outcome)
            if isinstance(outcome, NotMeasured):
                not_measured[rung] = outcome.reason
                measured.pop(rung)
            else:
                measured[rung].append(outcome)
    return Turns(
        tuple(gemm_peaks), {rung: tuple(done) for rung, done in measured.items()}, not_measured
    )


def _in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    # A server that has imported everything forks the processes: as fresh as new ones, without
    # seconds of imports each. The parent itself must not fork once it has threads or CUDA.
    forks = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
