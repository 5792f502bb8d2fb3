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

    def rows() -> Iterator[dict[str, Any]]:
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                schema = table.schema_arrow
                _check_names(schema.names, name)
                for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                    for row in batch.to_pylist():
                        number += 1
                        yield {field.name: _decode(row[field.name], field.type) for field in schema}
        except BadJson as error:
            raise DataError(
                f"A JSON column holds what is not JSON: {error.reason}.",
                where=f"{name}, row {number}",
                fix="write the file again",
            ) from None
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"The Parquet file cannot be read: {_one_line(error)}.",
                where=name,
                fix="fetch or make the file again",
            ) from None

    return write_rows(rows(), digest, name)


def write_rows(rows: Iterable[dict[str, Any]], key: str, name: str) -> Path:
    """Write the rows of a table as JSON Lines, kept under `key`; return that file.

    Raises:
        DataError: A value that JSON cannot hold.
        UserErrors: Several of these.
    """

    def produce() -> Iterator[bytes]:
        faults = Faults(name)
        for number, row in enumerate(rows, 1):
            try:
                plain = {column: _json(value, column) for column, value in row.items()}
            except RowFault as fault:
                faults.add(fault, f"row {number}")
                continue
            yield json.dumps(plain, ensure_ascii=False).encode() + b"\n"
        faults.raise_if_any()

    return cached_copy(f"{key}-{_FORM}", ".jsonl", produce)


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
