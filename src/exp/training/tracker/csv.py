"""Points and tables as CSV files, for spreadsheets."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from exp.training.tracker.base import RunFacts


class CsvTracker:
    """Writes metrics.csv with one line per value (step, name, value) and one file per table.

    One line per value, because names come and go during a run (validation has others than
    training), and columns cannot be added to a file that is being appended to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, facts: RunFacts) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = json.dumps(facts.config, indent=2, ensure_ascii=False)
        (self.directory / "config.json").write_text(config + "\n", encoding="utf-8")
        self._write("metrics.csv", [("step", "name", "value")], mode="w")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._write("metrics.csv", [(step, name, value) for name, value in values.items()])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        file_name = re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "table"
        self._write(f"{file_name}.csv", [columns, *rows], mode="w")

    def finish(self, status: str) -> None:
        """Nothing is open between calls."""

    def abort(self) -> None:
        """Nothing is open between calls."""

    def _write(self, name: str, rows: Sequence[Sequence[object]], mode: str = "a") -> None:
        path = self.directory / name
        with path.open(mode, encoding="utf-8", errors="replace", newline="") as file:
            csv.writer(file).writerows(rows)
