"""Measure all rungs of the training ladder in turns, and the GEMM peak with every repetition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exp.training.benchmark import rotation
from exp.training.benchmark.ladder import Rung
from exp.training.benchmark.measure import Job, Measurement, measure_gemm, measure_rung
from exp.training.benchmark.rotation import NotMeasured


@dataclass(frozen=True)
class Turns:
    """Everything that was measured.

    Attributes:
        gemm_peaks: FLOP/s, one per repetition.
        measured: Per rung one measurement per repetition.
        not_measured: The other rungs, and why.
    """

    gemm_peaks: tuple[float, ...]
    measured: dict[Rung, tuple[Measurement, ...]]
    not_measured: dict[Rung, str]


def measure_in_turns(
    job: Job,
    rungs: Sequence[Rung],
    repetitions: int,
    show: Callable[[int, Rung, Measurement | NotMeasured], None],
) -> Turns:
    """Measure every rung, and before each repetition what the machine does at its best."""
    peaks: list[float] = []
    measured, not_measured = rotation.take_turns(
        measure_rung,
        job,
        rungs,
        repetitions,
        show,
        begin=lambda: peaks.append(rotation.in_fresh_process(measure_gemm, job)),
    )
    return Turns(tuple(peaks), measured, not_measured)
