"""Write predictions beside the columns that came in, in the format that the file name asks for."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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


def check_output(path: str) -> None:
    """Refuse an output that cannot be written, before anything is computed.

    Raises:
        DataError: The extension is not known, or the folder is not there.
    """
    if path == "-":
        return
    if Path(path).suffix not in _WRITERS:
        raise DataError(
            f"output={path} has the extension {Path(path).suffix or 'none'!r}; known are "
            f"{', '.join(_WRITERS)}.",
            where="output",
            fix=f"output={Path(path).with_suffix('.jsonl')}",
        )
    if not Path(path).expanduser().resolve().parent.is_dir():
        raise DataError(
            f"The folder of output={path} is not there.",
            where="output",
            fix=f"mkdir -p {Path(path).parent}",
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
        records.append(
            {
                **example.meta,
                fields.id or "id": example.id,
                fields.input: example.input,
                PREDICTION: value,
                RAW: prediction.text,
                FINISH: prediction.finish_reason,
            }
        )
    if path == "-":
        sys.stdout.write(_json_lines(records).decode())
    else:
        suffix = Path(path).suffix
        write_atomically(Path(path).expanduser().resolve(), _WRITERS[suffix](records))
    return [("written", f"{len(records):,}"), *((name, f"{n:,}") for name, n in counts.items())]


def _json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace")


def _csv(records: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in records)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _parquet(records: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # Answers differ in shape from row to row, which no Parquet column can; JSON text can.
    plain = [{name: _cell(value) for name, value in record.items()} for record in records]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(plain), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


_WRITERS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
