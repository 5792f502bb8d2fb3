"""Parquet files and hub data sets -> JSON Lines in the cache folder.

Arrow's tables have types that JSON has not, and Parquet cannot be read row by row. One pass turns
them into the form that all else here reads, so that memory stays flat.

A Parquet struct has the same keys in every row: what one row lacks is null there, and is read as
null. Outputs whose keys vary are kept as they are by JSON columns, by text, and by JSON Lines.
"""

import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from exp.data.sources.faults import Faults, RowFault
from exp.data.sources.strict_json import BadJson, parse_json
from exp.data.sources.unpack import cached_copy
from exp.errors import DataError

_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
_FORM = "rows-1"
"""Changes whenever the same table would be written otherwise, so that older copies are not used."""


def unpack_parquet(path: Path, name: str) -> Path:
    """Write the rows of a Parquet file as JSON Lines; return that file.

    Raises:
        DataError: Not a Parquet file, or a value that JSON cannot hold.
        UserErrors: Several of these.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    def rows() -> Iterator[dict[str, Any] | RowFault]:
        number = 0
        try:
            # Read as a stream: by default the whole row group would be held in memory.
            with pyarrow.parquet.ParquetFile(
                path,
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
                page_checksum_verification=True,
            ) as table:
                _check_names(table.schema_arrow.names, name)
                for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                    yield from _python_rows(batch)
                    number += batch.num_rows
        # Names of columns that are not UTF-8 are a ValueError.
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"The Parquet file cannot be read: {_one_line(error)}.",
                where=f"{name}, behind row {number}" if number else name,
                fix="fetch or make the file again",
            ) from None

    return write_rows(rows(), digest, name)


def write_rows(rows: Iterable[dict[str, Any] | RowFault], key: str, name: str) -> Path:
    """Write the rows of a table as JSON Lines, kept under `key`; return that file.

    Args:
        rows: Each as Python values by column, or the reason why it has none.
        key: Changes with the rows.
        name: What the user calls their source.

    Raises:
        DataError: A value that JSON cannot hold.
        UserErrors: Several of these.
    """

    def produce() -> Iterator[bytes]:
        faults = Faults(name)
        for number, row in enumerate(rows, 1):
            try:
                if isinstance(row, RowFault):
                    raise row
                plain = {column: _json(value, column) for column, value in row.items()}
            except RowFault as fault:
                faults.add(fault, f"row {number}")
                continue
            yield json.dumps(plain, ensure_ascii=False).encode() + b"\n"
        faults.raise_if_any()

    return cached_copy(f"{key}-{_FORM}", ".jsonl", produce)


def _python_rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | RowFault]:
    """Turn a batch into rows of Python values; a row that has none becomes a fault."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, times that Python has not
        rows = None
    for index in range(batch.num_rows):
        try:
            row = _python_row(batch, index) if rows is None else rows[index]
            yield {field.name: _decode(row[field.name], field.type) for field in batch.schema}
        except BadJson as error:
            yield RowFault(f"a JSON column holds what is not JSON: {error.reason}")
        except RowFault as fault:
            yield fault


def _python_row(batch: pyarrow.RecordBatch, index: int) -> dict[str, Any]:
    row = {}
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[column] = values[index].as_py()
        except UnicodeDecodeError:
            raise RowFault(f'the text in the column "{column}" is not UTF-8') from None
        except (ValueError, OverflowError) as error:
            reason = f'the column "{column}" holds a value that cannot be read'
            raise RowFault(f"{reason}: {_one_line(error)}", _drop(column)) from None
    return row


def _decode(value: Any, type_: pyarrow.DataType) -> Any:
    """Parse the cells of JSON columns, at any depth; Arrow hands them over as text.

    Raises:
        BadJson: A cell is not JSON.
    """
    if value is None:
        return None
    if getattr(type_, "extension_name", None) == "arrow.json":
        return parse_json(value)
    if pyarrow.types.is_struct(type_):
        return {field.name: _decode(value[field.name], field.type) for field in type_}
    if pyarrow.types.is_list(type_) or pyarrow.types.is_large_list(type_):
        return [_decode(item, type_.value_type) for item in value]
    return value


def _check_names(names: list[str], name: str) -> None:
    for column in names:
        if names.count(column) > 1:
            raise DataError(
                f'The table has the column "{column}" twice.',
                where=name,
                fix="give each column its own name",
            )


def _json(value: Any, column: str) -> Any:
    """Return a value of a table as JSON has it: dates and times as ISO 8601 text.

    Raises:
        RowFault: JSON has nothing that is equal.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise RowFault(f'the column "{column}" holds {value}, which is not JSON', _drop(column))
    if isinstance(value, dict):
        return {key: _json(inner, f"{column}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner, column) for inner in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal) and value.is_finite():
        number = int(value) if value == value.to_integral_value() else float(value)
        if Decimal(repr(number)) == value:
            return number
        raise RowFault(f'the decimal {value} in the column "{column}" has too many digits')
    kind = type(value).__name__
    raise RowFault(f'the column "{column}" holds {kind}, which JSON has not', _drop(column))


def _drop(column: str) -> str:
    return f'write the file without the column "{column}", or with null or text in it'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
