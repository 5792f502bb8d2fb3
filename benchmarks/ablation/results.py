"""What the finished trials say: their scores, means over seeds, differences paired by seed."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student_t
from trials import BASELINE, SEEDS, Arm, DataSet, Trial, finished_run

from exp.config.plain import read_config
from exp.errors import DataError
from exp.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Budget:
    """What trials must have in common to be comparable."""

    model: str
    steps: int
    batch_size: int
    lr: float
    test_rows: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished trial says."""

    budget: Budget
    commit: str
    field_f1: float
    exact_match: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95% interval, which one seed alone does not have."""

    mean: float
    count: int
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


Results = Mapping[Trial, Result]


def read_results(trials: Iterable[Trial], folder: Path) -> dict[Trial, Result]:
    """Read the trials that are done.

    Raises:
        DataError: None is, or they had different budgets.
    """
    results = {}
    for trial in trials:
        run = finished_run(folder / trial.folder)
        if run is not None:
            results[trial] = read_result(run)
    if not results:
        raise DataError(
            "No trial is done yet.", where=str(folder), fix="python benchmarks/ablation/run.py"
        )
    places: dict[Budget, list[str]] = {}
    for trial, result in results.items():
        places.setdefault(result.budget, []).append(str(trial.folder))
    if len(places) > 1:
        listed = "; ".join(f"{budget}: {', '.join(found)}" for budget, found in places.items())
        raise DataError(
            f"The trials cannot be compared, since their budgets differ: {listed}",
            where=str(folder),
            fix="give run.py and table.py another --folder for each budget",
        )
    return results


def read_result(run: RunDir) -> Result:
    """Read the test scores of a finished run, and what it was made with."""
    config = read_config(run.config)
    record = json.loads(run.record.read_text(encoding="utf-8"))
    scores = json.loads(run.scores.read_text(encoding="utf-8"))["test"]["after"]
    budget = Budget(
        model=config.model.name,
        steps=record["training"]["steps"],
        batch_size=config.training.batch_size,
        lr=config.optimizer.lr,
        test_rows=scores["field_f1"]["count"],
    )
    return Result(
        budget,
        record["git"] or "unknown",
        scores["field_f1"]["value"],
        scores["exact_match"]["value"],
    )


def estimate(values: Sequence[float]) -> Estimate:
    """Average values of independent seeds; the interval is Student's t with n - 1 degrees."""
    count, mean = len(values), statistics.fmean(values)
    if count < 2:
        return Estimate(mean, count)
    half = float(student_t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Estimate(mean, count, mean - half, mean + half)


def difference(results: Results, data: DataSet, arm: Arm) -> tuple[Estimate, float] | None:
    """Compare an arm with the baseline over the seeds that both have.

    Returns:
        The mean of the differences in field F1, and its share of the baseline's mean over these
        seeds (NaN where that is 0); None if there is no such seed.
    """
    pairs = [
        (results[mine].field_f1, results[base].field_f1)
        for seed in SEEDS
        if (mine := Trial(data, arm, seed)) in results
        and (base := Trial(data, BASELINE, seed)) in results
    ]
    if not pairs:
        return None
    gain = estimate([mine - base for mine, base in pairs])
    reference = statistics.fmean(base for _, base in pairs)
    return gain, gain.mean / reference if reference else math.nan
