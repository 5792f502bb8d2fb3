"""`exp evaluate`: score runs or a base model, from the prediction cache where it can."""

import logging
from contextlib import nullcontext
from typing import Any

from exp.commands.inference import Subject, open_subject
from exp.commands.scoring import keep_scored, score_split
from exp.commands.subset import subset
from exp.config.resolve import Resolved
from exp.config.schema import EvaluateConfig
from exp.generation.cache.store import PredictionCache
from exp.report.console import print_next_steps, print_scores_table, print_table
from exp.report.run_report import write_run_report
from exp.rundir import RunDir

log = logging.getLogger(__name__)

COMPARED = ("field_f1", "exact_match", "valid", "schema_valid", "text_match", "bleu")


def run(resolved: Resolved) -> int:
    """Score each run, or the base model; print one sheet, or a table over several runs."""
    sheets: dict[str, dict[str, Any]] = {}
    kept: list[RunDir] = []
    for config in resolved.configs:
        with PredictionCache.from_config(config.cache) or nullcontext() as cache:
            subject = open_subject(config, cache, (config.split,))
            sheets[subject.label] = _score(subject, config)
        if subject.run is not None and config.limit is None:
            kept.append(subject.run)
            write_run_report(subject.run)
    if len(sheets) == 1:
        ((label, sheet),) = sheets.items()
        print_scores_table(None, sheet, title=f"{label} on {resolved.config.split}")
    else:
        _print_comparison(sheets, resolved.config.split)
    print_next_steps([f"report: {run.report}" for run in kept])
    return 0


def _score(subject: Subject, config: EvaluateConfig) -> dict[str, Any]:
    task = subject.foundation.task
    examples = subset(task.split(config.split), config.limit, config.seed)
    scored = score_split(
        task,
        examples,
        subject.predictor,
        subject.load_model,
        description=f"{subject.label}, {config.split}",
        seed=config.seed,
    )
    if subject.run is not None and config.limit is None:
        keep_scored(subject.run, config.split, "after", task, scored)
    return scored.sheet.to_json()


def _print_comparison(sheets: dict[str, dict[str, Any]], split: str) -> None:
    names = [name for name in COMPARED if any(sheet.get(name) for sheet in sheets.values())]
    rows = [[label, *(_cell(sheet.get(name)) for name in names)] for label, sheet in sheets.items()]
    print_table(["run", *names], rows, title=f"Scores on {split}", right=range(1, len(names) + 1))


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return "-"
    interval = "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"
    return f"{score['value']:.3f}{interval}"
