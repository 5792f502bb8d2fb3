"""What a study keeps of its trials, on disk: a sweeper may run them in any process."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exp.records import Score

OK = "ok"


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a study's trials.jsonl. `status` is "ok", or how the process ended."""

    name: str
    overrides: tuple[str, ...]
    status: str
    seconds: float
    path: str
    log: str
    split: str | None = None
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A folder of trials. Its records are on disk, since a sweeper may start trials anywhere."""

    path: Path
    verb: str
    flags: tuple[str, ...]
    num_trials: int | None = None
    shared: frozenset[str] = frozenset()
    """Overrides that all trials have, and that need no place in their names."""

    @property
    def records(self) -> Path:
        return self.path / "trials.jsonl"

    def add(self, trial: Trial) -> None:
        with self.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial)) + "\n")

    def trials(self) -> list[Trial]:
        if not self.records.is_file():
            return []
        rows = map(json.loads, self.records.read_text(encoding="utf-8").splitlines())
        return [_trial(row) for row in rows]


def _trial(row: dict[str, Any]) -> Trial:
    score = Score(**row["score"]) if row["score"] else None
    return Trial(**{**row, "overrides": tuple(row["overrides"]), "score": score})
