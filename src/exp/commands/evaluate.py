"""`exp evaluate`: score runs or a base model, from the prediction cache where it can."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from exp.commands.inference import Subject, foreign_settings, open_subject
from exp.commands.scoring import keep_scored, score_split
from exp.commands.subset import subset
from exp.config.resolve import Resolved
from exp.config.schema import EvaluateConfig
from exp.generation.cache.store import PredictionCache
from exp.report.console import print_next_steps, print_scores_table, print_table
from exp.report.run_report import write_run_report
from exp.rundir import open_run_dir

COMPARED = ("field_f1", "exact_match", "valid", "schema_valid", "text_match", "bleu")


def run(resolved: Resolved) -> int:
    """Score each run, or the base model; print one sheet, or a table over several runs."""
    sheets: list[tuple[str, dict[str, Any]]] = []
    for config in resolved.configs:
        with PredictionCache.from_config(config.cache) or nullcontext() as cache:
            subject = open_subject(config, cache, (config.split,))
            sheets.append((subject.label, _score(subject, config)))
    if len(sheets) == 1:
        ((label, sheet),) = sheets
        print_scores_table(None, sheet, title=f"{label} on {resolved.config.split}")
    else:
        _print_comparison(_told_apart(sheets, resolved.configs), resolved.config.split)
    print_next_steps([line for config in resolved.configs for line in _where_kept(config)])
    return 0


def _score(subject: Subject, config: EvaluateConfig) -> dict[str, Any]:
    """Score the split; keep predictions, scores and report in the run that they are of."""
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
    if subject.run is not None and not foreign_settings(config):
        keep_scored(subject.run, config.split, "after", task, scored)
        write_run_report(subject.run)
    return scored.sheet.to_json()


def _where_kept(config: EvaluateConfig) -> list[str]:
    if config.run is None:
        return []
    foreign = foreign_settings(config)
    if foreign:
        return [f"not kept in {config.run}, which has other settings: {', '.join(foreign)}"]
    return [f"report: {open_run_dir(config.run).report}"]


def _told_apart(
    sheets: Sequence[tuple[str, dict[str, Any]]], configs: Sequence[EvaluateConfig]
) -> list[tuple[str, dict[str, Any]]]:
    """Name runs of one name by their folders: trials of two studies are called alike."""
    counts = Counter(label for label, _ in sheets)
    return [
        (label if counts[label] == 1 else str(config.run), sheet)
        for (label, sheet), config in zip(sheets, configs, strict=True)
    ]


def _print_comparison(sheets: Sequence[tuple[str, dict[str, Any]]], split: str) -> None:
    names = [name for name in COMPARED if any(sheet.get(name) for _, sheet in sheets)]
    rows = [[label, *(_cell(sheet.get(name)) for name in names)] for label, sheet in sheets]
    print_table(["run", *names], rows, title=f"Scores on {split}", right=range(1, len(names) + 1))


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return "-"
    interval = "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"
    return f"{score['value']:.3f}{interval}"
