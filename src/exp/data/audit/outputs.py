"""Outputs after the way through their tokens: what a model would learn to write."""

from collections.abc import Sequence

from exp.config.schema import OutputFormat
from exp.data.audit.checks import (
    EMPTY_OUTPUT,
    LOSSY_OUTPUT,
    SCHEMA_INVALID,
    UNPARSABLE_OUTPUT,
)
from exp.data.audit.rows import AuditedRow
from exp.data.audit.tally import Tally
from exp.data.output import canonical, compile_schema, parse_output, schema_errors
from exp.data.render import Renderer
from exp.data.task import Task
from exp.records import Json

SHOWN_CHARS = 200


class OutputChecks:
    """Decodes completions, reads them back and compares them with the outputs of the rows."""

    def __init__(self, task: Task, renderer: Renderer, tally: Tally) -> None:
        self._renderer, self._tally = renderer, tally
        self._is_json = task.output_format is OutputFormat.json
        self._validator = None
        if self._is_json and task.schema is not None:
            self._validator = compile_schema(task.schema)

    def look_at(self, rows: Sequence[AuditedRow]) -> None:
        """Check some rows of a split."""
        kept = [row for row in rows if row.rendered is not None and row.rendered.completion_ids]
        completions = [row.rendered.completion_ids for row in kept if row.rendered is not None]
        end_id = self._renderer.end_id
        texts = self._renderer.tokenizer.decode_batch(
            [list(ids[:-1] if ids[-1] == end_id else ids) for ids in completions],
            skip_special_tokens=True,
        )
        for row, text in zip(kept, texts, strict=True):
            self._look_at(row, self._renderer.writing.read(text))

    def _look_at(self, row: AuditedRow, text: str) -> None:
        output = row.example.output
        if output in ("", {}, []):
            self._tally.add(EMPTY_OUTPUT, row)
        value: Json = text
        if self._is_json:
            value, failure = parse_output(text)
            if failure is not None:
                self._tally.add(UNPARSABLE_OUTPUT, row, f"{failure.value}: {text[:SHOWN_CHARS]}")
                return
        if value != output and canonical(value) != canonical(output):
            self._tally.add(LOSSY_OUTPUT, row, f"it comes back as {text[:SHOWN_CHARS]}")
        if self._validator is not None and (broken := schema_errors(value, self._validator)):
            self._tally.add(SCHEMA_INVALID, row, "; ".join(broken)[:SHOWN_CHARS])
