"""Points and tables as TensorBoard event files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exp.training.tracker.base import RunFacts


class TensorboardTracker:
    """Writes event files; `tensorboard --logdir <run folder>/tracker` shows them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer: Any = None
        self._step = 0

    def start(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.directory), flush_secs=10)
        # An indented block is the one form that Markdown shows as it is.
        lines = json.dumps(facts.config, indent=2, ensure_ascii=False).splitlines()
        self._writer.add_text("config", "\n".join("    " + line for line in lines))
        self._writer.add_text("tags", ", ".join(_cell(tag) for tag in facts.tags))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        self._writer.add_text(name, text, self._step)

    def finish(self, status: str) -> None:
        self._writer.add_text("status", status, self._step)
        self._writer.close()

    def abort(self) -> None:
        """Its files are written by a daemon thread; there is nothing to stop."""


_AS_TEXT = {ord(mark): f"&#{ord(mark)};" for mark in "&<>\"'\\`*_{}[]()#|!~"} | {ord("\n"): "<br>"}


def _cell(text: str) -> str:
    """Make text fit one cell of a Markdown table, as text and not as markup."""
    return text.encode("utf-8", "replace").decode().translate(_AS_TEXT)
