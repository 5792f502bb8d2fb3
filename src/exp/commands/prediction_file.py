"""Write predictions beside the columns that came in, in the format that the file name asks for."""

import csv
import io
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from exp.config.quoting import typed
from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.output import compile_schema, parse_output, schema_errors
from exp.data.task import Task
from exp.errors import DataError
from exp.publish import write_atomically
from exp.records import Example, Prediction

PREDICTION = "prediction"
"""Column with the parsed answer: JSON for json tasks (null where it does not parse), else text."""
RAW = "prediction_text"
FINISH = "finish_reason"
OWN = {PREDICTION, RAW, FINISH}


def check_output(path: str, source: str) -> None:
    """Refuse an output that cannot be written, before anything is computed.

    Args:
        path: Where predictions go.
        source: Where the rows come from.

    Raises:
        DataError: The extension is not known, the folder is not there or cannot be written, or
            the output would take the place of the input.
    """
    if path == "-":
        return
    if Path(path).suffix.lower() not in _WRITERS:
        raise DataError(
            f"output={path} has the extension {Path(path).suffix or 'none'!r}; known are "
            f"{', '.join(_WRITERS)}.",
            where="output",
            fix=typed("output", str(Path(path).with_suffix(".jsonl"))),
        )
    target = Path(path).expanduser().resolve()
    if not target.parent.is_dir():
        raise DataError(
            f"The folder of output={path} is not there.",
            where="output",
            fix=f"mkdir -p {shlex.quote(str(Path(path).parent))}",
        )
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        reason = "it is a folder" if target.is_dir() else "its folder is read-only"
        raise DataError(
            f"output={path} cannot be written: {reason}.",
            where="output",
            fix="output=<a file in a folder that can be written>",
        )
    if target == Path(source).expanduser().resolve():
        raise DataError(
            f"output={path} is the input, whose rows would be lost.",
            where="output",
            fix=typed("output", str(Path(path).with_suffix(f".predicted{Path(path).suffix}"))),
        )


def check_columns(examples: Iterable[Example], source: str) -> None:
    """Refuse rows with columns that the output has of its own: one of the two would be lost.

    Raises:
        DataError: There is such a column.
    """
    taken = {name for example in examples for name in OWN & example.meta.keys()}
    if taken:
        names = ", ".join(sorted(taken))
        raise DataError(
            f"The input has columns that predictions are written to: {names}.",
            where=source,
            fix="rename them in the input",
        )


def write_predictions(
    path: str,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    task: Task,
    fields: FieldsConfig,
) -> list[tuple[str, str]]:
    """Write one record per row, in the input's order, with all of its other columns.

    Returns:
        What came out, for a table: counts of rows, of unreadable ones, of cut ones.
    """
    counts: Counter[str] = Counter()
    validator = None if task.schema is None else compile_schema(task.schema)
    records = []
    for example, prediction in zip(examples, predictions, strict=True):
        value: Any = prediction.text
        if task.output_format is OutputFormat.json:
            value, failure = parse_output(prediction.text)
            counts["not JSON"] += failure is not None
            if validator is not None and failure is None:
                counts["against the schema"] += bool(schema_errors(value, validator))
        counts["cut at the token limit"] += prediction.finish_reason == "length"
        record = dict(example.meta)
        # With task.fields.id=null, a column of this name is one of the others.
        record.setdefault(fields.id or "id", example.id)
        record |= {
            fields.input: example.input,
            PREDICTION: value,
            RAW: prediction.text,
            FINISH: prediction.finish_reason,
        }
        records.append(record)
    if path == "-":
        # As bytes: standard output may have an encoding that lacks characters of the data.
        sys.stdout.buffer.write(_json_lines(records))
        sys.stdout.buffer.flush()
    else:
        content = _WRITERS[Path(path).suffix.lower()](records)
        write_atomically(Path(path).expanduser().resolve(), content)
    return [("written", f"{len(records):,}"), *((name, f"{n:,}") for name, n in counts.items())]


def _json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace")


def _csv(records: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    # Ends of lines stay as in RFC 4180: with "\n" alone a carriage return in a cell is not quoted.
    writer = csv.DictWriter(text, _columns(records))
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in records)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _parquet(records: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def column(values: list[Any]) -> Any:
        # Answers differ in shape from row to row, which no Parquet column can; JSON text can.
        values = [_cell(value) for value in values]
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            # So do other columns, in type.
            return pa.array(
                [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
            )

    names = _columns(records)
    sink = pa.BufferOutputStream()
    table = {name: column([record.get(name) for record in records]) for name in names}
    parquet.write_table(pa.table(table), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _columns(records: Sequence[dict[str, Any]]) -> list[str]:
    """Name the columns of all records: those of JSON Lines may differ from row to row."""
    return list(dict.fromkeys(name for record in records for name in record))


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


_WRITERS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
