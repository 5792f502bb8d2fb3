"""The trials of a study side by side: on the console, as JSON and as CSV."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exp.commands.study import OK, Trial
from exp.config.quoting import typed
from exp.publish import write_atomically
from exp.report.console import print_next_steps, print_table

COLUMNS = ("trial", "changed", "status", "split", "metric", "score", "low", "high", "seconds")


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Best score first; trials without a score last, in the order they ran."""
    return sorted(
        trials, key=lambda trial: (trial.score is None, -(trial.score.value if trial.score else 0))
    )


def changed(trials: Sequence[Trial]) -> dict[str, list[str]]:
    """Per trial, the overrides that not all trials share."""
    shared = set.intersection(*(set(trial.overrides) for trial in trials)) if trials else set()
    if len(trials) == 1:
        shared = set()
    return {trial.name: [o for o in trial.overrides if o not in shared] for trial in trials}


def rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """One flat row per trial, best first."""
    differences = changed(trials)
    return [
        {
            "trial": trial.name,
            "changed": " ".join(differences[trial.name]),
            "status": trial.status,
            "split": trial.split,
            "metric": trial.score.name if trial.score else None,
            "score": trial.score.value if trial.score else None,
            "low": trial.score.low if trial.score else None,
            "high": trial.score.high if trial.score else None,
            "seconds": round(trial.seconds, 1),
            "path": trial.path,
            "log": trial.log,
        }
        for trial in ranked(trials)
    ]


def write_leaderboard(folder: Path, trials: Sequence[Trial]) -> None:
    """Write leaderboard.json and leaderboard.csv into the study's folder."""
    table = rows(trials)
    write_atomically(folder / "leaderboard.json", json.dumps(table, indent=2) + "\n")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*COLUMNS, "path", "log"])
    writer.writeheader()
    writer.writerows(table)
    write_atomically(folder / "leaderboard.csv", text.getvalue())


def print_leaderboard(folder: Path, trials: Sequence[Trial]) -> None:
    """Print the table, then where things are and what to type next."""
    columns = ("trial", "changed", "status", "score", "95% interval", "time", "path")
    print_table(columns, [_cells(row) for row in rows(trials)], title="Trials")
    num_ok = sum(trial.status == OK for trial in trials)
    table = shown(folder / "leaderboard.csv")
    lines = [f"{num_ok} of {len(trials)} trials ended well; {table} holds the table"]
    best = ranked(trials)[0]
    if best.score is not None:
        lines.append(f"the best: exp evaluate {typed('run', shown(Path(best.path)))}")
    print_next_steps(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    score, low, high = row["score"], row["low"], row["high"]
    return (
        row["trial"].partition("-")[0],
        row["changed"],
        row["status"],
        "-" if score is None else f"{row['split']} {row['metric']} {score:.4f}",
        "-" if low is None or high is None else f"{low:.4f} to {high:.4f}",
        duration(row["seconds"]),
        shown(Path(row["path"] if row["status"] == OK else row["log"])),
    )


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or with hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
