"""From the files of a finished run to what to try next."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from exp.config.schema import TrainConfig
from exp.data.audit.checks import CONFLICT
from exp.data.plan import BatchPlan
from exp.hardware.resolver import ResolvedHardware
from exp.metrics.row import ErrorKind
from exp.rundir import RunDir
from exp.training.advice import (
    Advice,
    ScoreFacts,
    SpeedFacts,
    advise_low_score,
    advise_slow,
    computes_slowly,
    memorised,
    score_fell,
    waits_for_data,
)
from exp.training.metrics_log import read_metrics, series

if TYPE_CHECKING:
    from peft import PeftModel

Curves = Mapping[str, Sequence[tuple[int, float]]]
INVALID = frozenset({ErrorKind.unparsable.value, ErrorKind.schema_invalid.value})
# Steps whose operations are counted; of a longer run so many at even distances.
MOST_STEPS = 64
# The end of the loss curve, which single steps make ragged.
LAST_POINTS = 5


@dataclass(frozen=True, slots=True)
class Improvement:
    """Something that could be better, and what to try in order; empty if there is nothing left."""

    what: str
    advice: list[Advice]


def find_improvements(
    run: RunDir,
    config: TrainConfig,
    hardware: ResolvedHardware,
    model: "PeftModel",
    plan: BatchPlan,
) -> list[Improvement]:
    """Look at how fast a run was and how it scored."""
    curves = series(read_metrics(run.metrics))
    record = json.loads(run.record.read_text(encoding="utf-8"))
    speed = measure_speed(curves, hardware, model, plan)
    score = measure_score(curves, run, record.get("audit", {}), config.task.monitor)
    found = [
        Improvement(_describe_speed(hardware, speed), advise_slow(config, hardware, speed)),
        Improvement(_describe_score(config, score), advise_low_score(config, score)),
    ]
    return [one for one in found if one.advice]


def measure_speed(
    curves: Curves, hardware: ResolvedHardware, model: "PeftModel", plan: BatchPlan
) -> SpeedFacts:
    """Take medians over the logged points, as validations fall into some of them."""
    waits = [value for _, value in curves.get("train/data_wait_share", ())]
    rates = [value for _, value in curves.get("train/examples_per_second", ())]
    steps = [plan.step(n) for n in range(0, plan.num_steps, -(-plan.num_steps // MOST_STEPS))]
    share = None
    if hardware.peak_tflops is not None and rates:
        from exp.training.benchmark.flops import count_flops, model_size

        flops = count_flops(model_size(model), plan.shared_tokens, plan.lengths, steps)
        per_example = flops / sum(step.num_examples for step in steps)
        peak = hardware.peak_tflops * 1e12 * hardware.devices
        share = per_example * median(rates) / peak
    return SpeedFacts(
        useful_flop_share=share,
        data_wait_share=median(waits) if waits else None,
        fills_micro_batch=any(len(step.micro_batches) > 1 for step in steps),
    )


def measure_score(
    curves: Curves, run: RunDir, audit: Mapping[str, Any], monitor: str
) -> ScoreFacts:
    """Read the validation scores, the loss and what is wrong with predictions off a run's files."""
    scores = [value for _, value in curves.get(f"val/{monitor}", ())]
    losses = [value for _, value in curves.get("train/loss", ())]
    rows = _read_predictions(run)
    conflicts = audit.get("warnings", {}).get(f"train/{CONFLICT.name}", 0)
    num_rows = audit.get("rows", {}).get("train", 0)
    return ScoreFacts(
        best_score=max(scores, default=None),
        last_score=scores[-1] if scores else None,
        improved_at_the_end=len(scores) > 1 and scores[-1] > max(scores[:-1]),
        train_loss=mean(losses[-LAST_POINTS:]) if losses else None,
        cut_share=_share(row["finish_reason"] == "length" for row in rows),
        invalid_share=_share(not INVALID.isdisjoint(row["errors"]) for row in rows),
        noise_share=conflicts / num_rows if num_rows else None,
    )


def _read_predictions(run: RunDir) -> list[dict[str, Any]]:
    for split in ("validation", "test"):
        path = run.predictions(split)
        if path.is_file():
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return []


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None


def _describe_speed(hardware: ResolvedHardware, facts: SpeedFacts) -> str:
    parts = []
    if waits_for_data(facts):
        parts.append(f"{facts.data_wait_share:.0%} of the time went into waiting for batches")
    if computes_slowly(hardware, facts):
        parts.append(
            f"useful operations reached {facts.useful_flop_share:.0%} of the device's peak, where "
            f"its profile expects {hardware.expected_flop_share:.0%}"
        )
    return "Slow: " + "; ".join(parts)


def _describe_score(config: TrainConfig, facts: ScoreFacts) -> str:
    words = f"Low score: {config.task.monitor} reached {facts.best_score or 0:.3f} in validation"
    if facts.train_loss is not None:
        words += f"; the training loss came to {facts.train_loss:.3f} nats per label"
    if memorised(facts):
        return f"{words}, so the training rows are known by heart"
    if score_fell(facts):
        return f"{words}, and the score fell to {facts.last_score:.3f} at the end"
    return words
