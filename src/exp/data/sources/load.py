"""The validating pass: every row is read once, and then there are examples, or errors."""

import atexit
import hashlib
import json
import shutil
import sys
import tempfile
from array import array
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.sources.datafile import DataFile
from exp.data.sources.delimited import Delimited, read_header
from exp.data.sources.examples import Examples, FileExamples
from exp.data.sources.faults import Faults, RowFault
from exp.data.sources.fields import OWN_IDS, RowReader
from exp.data.sources.formats import Format
from exp.data.sources.hub import PREFIX as HUB
from exp.data.sources.hub import unpack_hub
from exp.data.sources.json_array import JsonArray
from exp.data.sources.json_lines import JsonLines
from exp.data.sources.location import locate
from exp.data.sources.unpack import COMPRESSIONS, unpack
from exp.errors import DataError

STANDARD_INPUT = "-"
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def load_rows(
    path: str,
    fields: FieldsConfig,
    require_output: bool = True,
    *,
    output_format: OutputFormat = OutputFormat.json,
    split: str = "row",
    where: str | None = None,
    id_prefix: str = "",
) -> Examples:
    """Check all rows of a source and index them.

    Args:
        path: A .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, also with .gz or .zst;
            `builtin:<file>`; `hub:<owner/name>[:config][:split]`; `-` for JSON Lines from standard
            input.
        fields: Which columns hold id, input and output.
        require_output: Every row must have an output. Without it, examples may have None there.
        output_format: json parses outputs that are strings; text wants strings.
        split: The split of a hub data set, and what rows without an id are called by.
        where: The setting that names the source, for errors.
        id_prefix: What rows without an id are called by. "": the split.

    Raises:
        DataError: There is no such source, it cannot be read, or a row is bad.
        UserErrors: Several rows are bad.
    """
    reader = RowReader(fields, output_format, require_output, id_prefix or split)
    try:
        file, kind = _open(path, split, where)
        return _index(file, kind, reader)
    except OSError as error:
        raise DataError(
            f"The file cannot be read: {error.strerror}.", where=path, fix=f"ls -l {path}"
        ) from None


def _index(file: DataFile, kind: str, reader: RowReader) -> Examples:
    """Read every row once, and keep where each begins and ends."""
    faults = Faults(file.name)
    format_ = _format(file, kind, faults)
    starts, ends, numbers, hashes = (array("q") for _ in range(4))
    with file.path.open("rb") as stream:
        for start, end, number, place, row in format_.scan(stream):
            if isinstance(row, RowFault):
                faults.add(row, place)
                continue
            try:
                id_, _, _ = reader.read(row, number)
            except RowFault as fault:
                faults.add(fault, place)
                continue
            starts.append(start)
            ends.append(end)
            numbers.append(number)
            hashes.append(hash(id_))
    file.check_unchanged()
    examples = FileExamples(
        file,
        format_,
        reader,
        _as_numpy(starts),
        _as_numpy(ends),
        _as_numpy(numbers),
        _content_key(file, format_, reader),
    )
    _check_ids(examples, _as_numpy(hashes), faults)
    faults.raise_if_any()
    return examples


def _open(name: str, split: str, where: str | None) -> tuple[DataFile, str]:
    """Return a plain, local file with the rows of a source, and its extension."""
    if name == STANDARD_INPUT:
        return DataFile(_spool_standard_input(), "standard input"), ".jsonl"
    if name.startswith(HUB):
        return DataFile(unpack_hub(name, split), name), ".parquet"
    path = locate(name, where)
    packed = path.suffix.lower() in COMPRESSIONS
    kind = Path(path.stem if packed else path.name).suffix.lower()
    if kind not in FORMATS:
        raise DataError(
            f'The format of {name} cannot be told from its extension "{kind}".',
            where=f"{where}={name}" if where else name,
            fix=f"name it {', '.join(FORMATS)}, each also with {' or '.join(COMPRESSIONS)}",
        )
    if packed:
        path = unpack(path, name)
    if kind == ".parquet":
        from exp.data.sources.columns import unpack_parquet  # imports Arrow; few need it

        path = unpack_parquet(path, name)
    return DataFile(path, name), kind


def _spool_standard_input() -> Path:
    # A pipe can be read once; rows are asked for twice and in any order.
    with tempfile.NamedTemporaryFile(prefix="exp-stdin-", suffix=".jsonl", delete=False) as file:
        path = Path(file.name)
        atexit.register(path.unlink, missing_ok=True)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _format(file: DataFile, kind: str, faults: Faults) -> Format:
    if kind == ".json":
        return JsonArray()
    if kind in _DELIMITERS:
        with file.path.open("rb") as stream:
            columns, fault = read_header(stream, _DELIMITERS[kind])
        if fault:
            place, reason = fault
            faults.add(reason, place)
            faults.raise_if_any()
        return Delimited(_DELIMITERS[kind], columns)
    return JsonLines(unit="row" if kind == ".parquet" else "line")


def _content_key(file: DataFile, format_: Format, reader: RowReader) -> str:
    mapping = {
        "fields": asdict(reader.fields),
        "format": repr(format_),
        "output_format": reader.output_format.name,
        "require_output": reader.require_output,
        "id_prefix": reader.id_prefix,
    }
    text = file.sha256() + json.dumps(mapping, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_ids(examples: Examples, hashes: NDArray[np.int64], faults: Faults) -> None:
    """Find ids that are there twice. Hashes keep memory flat; equal ones are compared in full."""
    order = np.argsort(hashes, kind="stable")
    again = hashes[order][1:] == hashes[order][:-1]
    suspects = np.unique(np.concatenate([order[1:][again], order[:-1][again]]))
    first: dict[str, int] = {}
    for index in suspects.tolist():
        id_ = examples[index].id
        if id_ not in first:
            first[id_] = index
            continue
        _, earlier = examples.place(first[id_]).rsplit(", ", 1)
        _, place = examples.place(index).rsplit(", ", 1)
        faults.add(RowFault(f'the id "{id_}" of {earlier} is there again', OWN_IDS), place)


def _as_numpy(values: "array[int]") -> NDArray[np.int64]:
    # Shares the array's memory.
    return np.frombuffer(values, dtype=np.int64)
