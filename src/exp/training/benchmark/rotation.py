"""Let the rungs of a ladder take turns, each time in a fresh process, so that drift meets them all.

Knows nothing of what is measured.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from typing import Any, TypeVar

Job = TypeVar("Job")
Rung = TypeVar("Rung", bound=Hashable)
Measurement = TypeVar("Measurement")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A rung that this model, machine, run or task does not have, and why."""

    reason: str


def take_turns(
    measure: Callable[[Job, Rung], Measurement | NotMeasured],
    job: Job,
    rungs: Sequence[Rung],
    repetitions: int,
    show: Callable[[int, Rung, Measurement | NotMeasured], None],
    begin: Callable[[], None] | None = None,
) -> tuple[dict[Rung, tuple[Measurement, ...]], dict[Rung, str]]:
    """Measure every rung `repetitions` times; one that cannot be measured is not tried again.

    Args:
        measure: A function at the top of a module, or a process cannot be told of it.
        job: What all rungs share.
        rungs: What to measure.
        repetitions: How often.
        show: Gets (repetition, rung, outcome) as soon as a measurement is done.
        begin: Called before the first rung of each repetition.

    Returns:
        Per rung one measurement per repetition, aligned, so that the i-th ones of two rungs were
        taken one after the other; and the other rungs, and why they were not measured.
    """
    measured: dict[Rung, list[Measurement]] = {}
    not_measured: dict[Rung, str] = {}
    for repetition in range(repetitions):
        if begin is not None:
            begin()
        for rung in rungs:
            if rung in not_measured:
                continue
            outcome: Measurement | NotMeasured
            try:
                outcome = in_fresh_process(measure, job, rung)
            except BrokenProcessPool:
                outcome = NotMeasured("its process was killed, most likely for want of memory")
            show(repetition, rung, outcome)
            if isinstance(outcome, NotMeasured):
                not_measured[rung] = outcome.reason
                measured.pop(rung, None)
            else:
                measured.setdefault(rung, []).append(outcome)
    return {rung: tuple(done) for rung, done in measured.items()}, not_measured


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function where nothing else has been computed, or left in memory."""
    # A server that has imported everything forks the processes: as fresh as new ones, without
    # seconds of imports each. The parent itself must not fork once it has threads or CUDA.
    forks = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
