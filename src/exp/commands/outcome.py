"""The end of a training: what came out, where it is, what to type next."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exp.commands.advising import Improvement
from exp.commands.leaderboard import shown
from exp.commands.scoring import read_scores
from exp.commands.session import Session
from exp.config.quoting import typed
from exp.report.advice import print_advice
from exp.report.console import print_next_steps, print_predictions, print_scores_table
from exp.report.run_report import write_run_report
from exp.training.fit import FitOutcome

SHOWN_PREDICTIONS = 4


def report_outcome(
    session: Session, outcome: FitOutcome, improvements: Sequence[Improvement] = ()
) -> None:
    """Print scores before and after with a few predictions, write the report, say what is next."""
    run = session.run
    for split, stages in read_scores(run.scores).items():
        print_scores_table(stages["before"], stages["after"], title=f"Scores on {split}")
    rows = _read_rows(run.predictions("test")) or _read_rows(run.predictions("validation"))
    print_predictions(rows[:SHOWN_PREDICTIONS])
    session.show_predictions(rows)
    session.note(status="completed")
    write_run_report(run)
    for one in improvements:
        print_advice(one.what, [str(advice) for advice in one.advice])
    folder = shown(run.path)
    run_word = typed("run", folder)
    print_next_steps(
        [
            f"trained {outcome.steps} steps in {outcome.seconds:.0f} s; "
            f"best step {outcome.best_step}"
            + (f", {outcome.stopped_by} ended the training" if outcome.stopped_by else ""),
            f"run:      {folder}",
            f"report:   {folder}/{run.report.name}",
            f"adapter:  {folder}/checkpoints/step_{outcome.best_step:06d}  (plain PEFT)",
            f"score:    exp evaluate {run_word} split=test",
            f"predict:  exp predict {run_word} input=rows.jsonl output=predictions.jsonl",
        ]
    )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
