"""One parsed row -> id, input and output, as the task's field names say."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.sources.faults import RowFault
from exp.data.sources.strict_json import BadJson, parse_json
from exp.records import Example, Json

Row = dict[str, Any]

OWN_IDS = "give every row its own id, or task.fields.id=null to name rows by their line"

_ABSENT = object()
_JSON_NAMES = {
    dict: "a JSON object",
    list: "a JSON array",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def json_type_name(value: Json) -> str:
    """Say in words what kind of JSON a value is."""
    return _JSON_NAMES[type(value)]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Takes id, input and output out of a row. Knows nothing about files."""

    fields: FieldsConfig
    output_format: OutputFormat
    require_output: bool
    id_prefix: str
    """Rows without an id are called <id_prefix>-<number>."""

    def read(self, row: Row, number: int) -> tuple[str, str, Json]:
        """Return id, input and output of the row with this number.

        Raises:
            RowFault: A column is missing, or holds something of the wrong kind.
        """
        return (
            self._id(_find(row, self.fields.id), row, number),
            self._input(_find(row, self.fields.input), row),
            self._output(_find(row, self.fields.output), row),
        )

    def example(self, row: Row, number: int) -> Example:
        """Build the example of the row with this number; the columns left over are its meta."""
        id_, input_, output = self.read(row, number)
        for name in (self.fields.id, self.fields.input, self.fields.output):
            _remove(row, name)
        return Example(id=id_, input=input_, output=output, meta=row)

    def _id(self, value: Any, row: Row, number: int) -> str:
        if value is _ABSENT:
            # A row may do without the default column, not without one that was asked for.
            if self.fields.id is None or self.fields.id == FieldsConfig.id:
                return f"{self.id_prefix}-{number}"
            raise self._missing(row)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise RowFault(
                f'the id in "{self.fields.id}" is {json_type_name(value)}, not a string or integer',
                OWN_IDS,
            )
        if not value.strip():
            raise RowFault(
                f'the id in "{self.fields.id}" is empty',
                OWN_IDS,
            )
        return value

    def _input(self, value: Any, row: Row) -> str:
        if isinstance(value, str) and value and not value.isspace():
            return value
        if value is _ABSENT:
            raise self._missing(row)
        if isinstance(value, str):
            raise RowFault(f'the input in "{self.fields.input}" is empty')
        raise RowFault(
            f'the input in "{self.fields.input}" is {json_type_name(value)}, not a string',
            fix="task.fields.input=<the column with the text>",
        )

    def _output(self, value: Any, row: Row) -> Json:
        if value is _ABSENT:
            if self.require_output:
                raise self._missing(row)
            return None
        if value is None or (value == "" and not self.require_output):
            if self.require_output:
                raise RowFault(f'the output in "{self.fields.output}" is null')
            return None
        if self.output_format is OutputFormat.text:
            if isinstance(value, str):
                return value
            raise RowFault(
                f'the output in "{self.fields.output}" is {json_type_name(value)}, not a string',
                fix="task.output_format=json, or write outputs as strings",
            )
        return self._parsed(value) if isinstance(value, str) else value

    def _parsed(self, text: str) -> Json:
        column = self.fields.output
        fix = "write the output as a JSON object, or task.output_format=text"
        try:
            value = parse_json(text)
        except BadJson as error:
            at = "" if error.position is None else f" at character {error.position + 1} of it"
            raise RowFault(
                f'the output in "{column}" is a string that is not JSON: {error.reason}{at}', fix
            ) from None
        # "5" may be a number or a string; an object or an array can be meant in one way only.
        if not isinstance(value, dict | list):
            raise RowFault(
                f'the output in "{column}" is a string that holds {json_type_name(value)}, '
                "not a JSON object",
                fix,
            )
        return value

    def _missing(self, row: Row) -> RowFault:
        """Name all columns that a row lacks, those that it has, and the closest of them."""
        wanted = {"id": self.fields.id, "input": self.fields.input, "output": self.fields.output}
        if self.fields.id == FieldsConfig.id:
            del wanted["id"]
        if not self.require_output:
            del wanted["output"]
        lacking = {
            role: name
            for role, name in wanted.items()
            if name is not None and _find(row, name) is _ABSENT
        }
        names = list(_nested_names(row))
        fixes = []
        for role, name in lacking.items():
            closest = difflib.get_close_matches(name, names, n=1)
            column = closest[0] if closest else f"<the column with the {role}>"
            fixes.append(f"task.fields.{role}={column}")
        fix = " ".join(fixes)
        columns = list(row)
        if len(columns) == 1 and ";" in columns[0]:
            fix = "separate the columns by commas, or by tabs in a .tsv file, not by semicolons"
        listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        missing = " and ".join(
            f'no column "{name}" for the {role}' for role, name in lacking.items()
        )
        return RowFault(f"{missing}; there are: {listed or 'none'}", fix)


def _find(row: Row, name: str | None) -> Any:
    """Return the value of a column; dots go into objects, unless a column's own name has them."""
    if name is None:
        return _ABSENT
    if name in row:
        return row[name]
    holder = _holder(row, name)
    return _ABSENT if holder is None else holder[-1][0][holder[-1][1]]


def _holder(row: Row, name: str) -> list[tuple[Row, str]] | None:
    """Return the objects and keys that lead to a column, outermost first; None if there is none."""
    if name in row:
        return [(row, name)]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        key = ".".join(parts[:length])
        if isinstance(inner := row.get(key), dict):
            below = _holder(inner, ".".join(parts[length:]))
            if below is not None:
                return [(row, key), *below]
    return None


def _remove(row: Row, name: str | None) -> None:
    """Take a column out of its row, and every object that it leaves empty."""
    if name is None or (path := _holder(row, name)) is None:
        return
    for holder, key in reversed(path):
        del holder[key]
        if holder:
            return


def _nested_names(row: Row, prefix: str = "") -> Iterator[str]:
    """Yield the names of all columns, those inside objects with dots."""
    for key, value in row.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _nested_names(value, f"{prefix}{key}.")
