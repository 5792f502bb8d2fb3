"""Predict a split, score it, and keep both in the run folder."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from exp.data.output import encode_output
from exp.data.task import Task
from exp.errors import CheckpointError
from exp.generation.predictor import Predictor
from exp.metrics.score_sheet import ScoreSheet, score_predictions
from exp.publish import write_atomically
from exp.records import Example, Prediction
from exp.report.progress import progress
from exp.rundir import RunDir

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Scored:
    """The predictions of a split and their scores."""

    examples: Sequence[Example]
    predictions: list[Prediction]
    sheet: ScoreSheet


def score_split(
    task: Task,
    examples: Sequence[Example],
    predictor: Predictor,
    load_model: "Callable[[], PreTrainedModel]",
    *,
    description: str,
    seed: int,
) -> Scored:
    """Predict all examples with a progress bar, then score them."""
    with progress(description, len(examples)) as advance:
        predictions = predictor.predict(examples, advance.behind(load_model), advance)
    sheet = score_predictions(predictions, examples, task.output_format, task.schema, seed)
    return Scored(examples, predictions, sheet)


STAGES = {"before": "base model", "after": "adapter"}


def score_stage(
    run: RunDir,
    stage: str,
    task: Task,
    splits: Mapping[str, Sequence[Example]],
    predictor: Predictor,
    load_model: "Callable[[], PreTrainedModel]",
    *,
    seed: int,
) -> None:
    """Score a run's splits "before" or "after" training, and keep what comes out."""
    for split, examples in splits.items():
        scored = score_split(
            task,
            examples,
            predictor,
            load_model,
            description=f"{STAGES[stage]}, {split}",
            seed=seed,
        )
        keep_scored(run, split, stage, task, scored)


def keep_scored(run: RunDir, split: str, stage: str, task: Task, scored: Scored) -> None:
    """Write predictions/<split>.jsonl and this split's part of scores.json.

    Args:
        run: The run folder.
        split: Name of the split.
        stage: "before" for the base model, "after" for the adapter.
        task: Its output format decides how references are written.
        scored: What to keep.
    """
    lines = [
        json.dumps(row, ensure_ascii=True, allow_nan=False) for row in prediction_rows(task, scored)
    ]
    write_atomically(run.predictions(split, stage), "".join(f"{line}\n" for line in lines))
    # Another process may be scoring another split of this run.
    with FileLock(run.scores_lock):
        scores = read_scores(run.scores)
        scores.setdefault(split, {"before": None, "after": None})[stage] = scored.sheet.to_json()
        write_atomically(run.scores, json.dumps(scores, indent=2, allow_nan=False) + "\n")


def read_scores(path: Path) -> dict[str, Any]:
    """Read scores.json; {} if nothing was scored yet.

    Raises:
        CheckpointError: The file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"The scores of the run cannot be read: {error}.",
            where=str(path),
            fix=f"rm {shlex.quote(str(path))}, and evaluate the run again",
        ) from error
    return scores


def prediction_rows(task: Task, scored: Scored) -> list[dict[str, Any]]:
    """One flat record per row, as the report and people read it."""
    results = {row.id: row for row in scored.sheet.rows}
    predictions = {prediction.id: prediction for prediction in scored.predictions}
    return [
        {
            "id": example.id,
            "input": example.input,
            "reference": encode_output(example.output, task.output_format, task.schema),
            "prediction": predictions[example.id].text,
            "finish_reason": predictions[example.id].finish_reason,
            "errors": [kind.value for kind in results[example.id].errors],
            "exact": results[example.id].exact,
            "num_tokens": predictions[example.id].num_tokens,
        }
        for example in scored.examples
    ]
