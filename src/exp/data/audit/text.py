"""Ids and inputs as they were written."""

import re
from collections.abc import Iterable, Sequence

from exp.config.schema import OutputFormat
from exp.data.audit.checks import (
    ANSWER_IN_INPUT,
    CONTROL_TEXT,
    EMPTY_ID,
    EMPTY_INPUT,
    INSTRUCTION_IN_INPUT,
)
from exp.data.audit.rows import AuditedRow
from exp.data.audit.tally import Tally
from exp.data.output import parse_output
from exp.data.render import Renderer
from exp.data.task import Task
from exp.records import Json

MOST_BRACKETS = 8
"""Places of an input where its answer is looked for; text full of brackets would cost too much."""


class TextChecks:
    """The checks of a row's own texts."""

    def __init__(self, task: Task, renderer: Renderer, tally: Tally) -> None:
        self._tally = tally
        self._instruction = " ".join(task.instruction.split())
        self._is_json = task.output_format is OutputFormat.json
        added = renderer.tokenizer.get_added_tokens_decoder().values()
        control = sorted({token.content for token in added if token.special})
        self._control = re.compile("|".join(map(re.escape, control)) or r"(?!)")

    def look_at(self, rows: Sequence[AuditedRow]) -> None:
        """Check some rows of a split."""
        for row in rows:
            self._look_at(row)

    def _look_at(self, row: AuditedRow) -> None:
        example, add = row.example, self._tally.add
        if not example.id.strip():
            add(EMPTY_ID, row)
        text = example.input
        if not text.strip():
            add(EMPTY_INPUT, row)
        if found := self._control.search(text) or self._in_output(example.output):
            add(CONTROL_TEXT, row, repr(found[0]))
        if self._instruction and self._instruction in " ".join(text.split()):
            add(INSTRUCTION_IN_INPUT, row)
        if self._is_json and example.output and _holds(text, example.output):
            add(ANSWER_IN_INPUT, row)

    def _in_output(self, output: Json) -> "re.Match[str] | None":
        if isinstance(output, str):
            return self._control.search(output)
        inner: Iterable[Json] = ()
        if isinstance(output, dict):
            inner = output.values()
        elif isinstance(output, list):
            inner = output
        return next(filter(None, map(self._in_output, inner)), None)


def _holds(text: str, output: Json) -> bool:
    """Tell whether a text contains an output as JSON, however it is laid out."""
    for opening in [at for at, char in enumerate(text) if char in "{["][:MOST_BRACKETS]:
        if parse_output(text[opening:])[0] == output:
            return True
    return False
