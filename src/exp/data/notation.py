"""How a model writes the outputs of a task: as JSON (or text) itself, or by position.

What a model writes becomes the task's own text as soon as it is decoded, so that scores, reports
and files know of JSON alone.
"""

import hashlib
import json
from functools import cached_property
from typing import Any, Protocol

from exp.config.schema import Notation, OutputFormat
from exp.data.key_order import order_keys
from exp.data.output import encode_output, parse_output
from exp.data.positional import Positional
from exp.records import Json


class Writing(Protocol):
    """One way to write outputs."""

    @property
    def grammar(self) -> dict[str, Any] | None:
        """The JSON Schema of what is written; None where anything may be."""

    @property
    def legend(self) -> str | None:
        """Names what answers cannot be read without; None where they speak for themselves."""

    def write(self, output: Json) -> str:
        """Write an output as the model is to write it.

        Raises:
            DataError: It cannot be written so, or would not be read back.
        """

    def read(self, text: str) -> str:
        """Turn what a model wrote into the task's own text; what cannot be read stays as it is."""


def open_writing(
    notation: Notation, output_format: OutputFormat, schema: dict[str, Any] | None
) -> Writing:
    """Choose the writing; by position needs JSON outputs and a schema."""
    if notation is Notation.positional:
        assert schema is not None, "config/check.py refuses this"
        return _ByPosition(schema)
    return _AsItIs(output_format, schema)


class _AsItIs:
    legend = None

    def __init__(self, output_format: OutputFormat, schema: dict[str, Any] | None) -> None:
        self._output_format, self.grammar = output_format, schema

    def write(self, output: Json) -> str:
        return encode_output(output, self._output_format, self.grammar)

    def read(self, text: str) -> str:
        return text


class _ByPosition:
    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    @cached_property
    def _positional(self) -> Positional:
        return Positional(self._schema)

    @property
    def grammar(self) -> dict[str, Any]:
        return self._positional.grammar

    @property
    def legend(self) -> str:
        return hashlib.sha256(json.dumps(self._positional.legend()).encode()).hexdigest()

    def write(self, output: Json) -> str:
        ordered = order_keys(output, self._schema)
        return encode_output(self._positional.write(ordered), OutputFormat.json)

    def read(self, text: str) -> str:
        value, failure = parse_output(text)
        if failure is not None:
            return text
        return encode_output(self._positional.read(value), OutputFormat.json)
