"""Mutated files give the exact rows, or an error with the exact file and lines.

The reference readers below share nothing with the package: gzip members and zstd frames are walked
by hand, lines are split by hand, Parquet is read in one piece.
"""

import csv
import datetime
import gzip
import io
import json
import math
import random
import re
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from exp.cachedir import cache_dir
from exp.config.schema import FieldsConfig
from exp.data.sources import load_rows
from exp.errors import DataError, UserErrors

JSON_LINES = "".join(
    json.dumps(row, ensure_ascii=False) + "\n"
    for row in [
        {"id": "a", "input": "uno, dos", "output": {"n": 1, "m": [1.5, None]}},
        {"id": "b", "input": "añejo\u2028☎", "output": "{}", "source": "web"},
        {"input": 'dice "hola"', "output": {"n": {"k": True}}},
        {"id": 7, "input": "siete\u0085", "output": {}},
    ]
).encode()
CSV = 'id,input,output\n1,uno,{}\n2,"dos\ny ""tres""\n",{}\n\n4,"año, mes","{""n"": 1}"\n'.encode()
PIECES = [
    b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xff", b"\xe2\x80\xa8", b"\x00", b'"', b"\\", b",",
    b"{", b"}", b"[", b"NaN", b"1e999", b"-", b'"id": "a", ', b'{"a": 1, "a": 2}', b"\\ud800",
    b"null", b" ", b'""', b'"output"', b"\t",
]  # fmt: skip

Row = tuple[str, str, Any, dict[str, Any]]


class Bad(Exception):
    """The row is bad, or, outside a row, the whole file."""


class File(NamedTuple):
    name: str
    data: bytes


def mutate(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[min(to, at + 20) :]
        elif kind == 2:
            data = data[:at] + data[at:to] + data[at:]
        elif kind == 3:
            data = data[:at] or b"\n"
        else:
            data = data[:at] + rng.choice(PIECES) + data[at:]
    return data


def strictly(text: str) -> Any:
    def pairs(items):
        if len({key for key, _ in items}) < len(items):
            raise Bad
        return dict(items)

    def constant(_):
        raise Bad

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        again = json.dumps(value, ensure_ascii=False, allow_nan=False)
        again.encode()
    except ValueError:
        raise Bad from None
    return value


def check(row: Any, number: int) -> Row:
    if not isinstance(row, dict):
        raise Bad
    id_ = row.pop("id", f"row-{number}")
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not str(id_).strip():
        raise Bad
    if not isinstance(row.get("input"), str) or not row["input"].strip():
        raise Bad
    if row.get("output") is None:
        raise Bad
    if isinstance(row["output"], str):
        row["output"] = strictly(row["output"])
        if not isinstance(row["output"], dict | list):
            raise Bad
    return str(id_), row.pop("input"), row.pop("output"), row


def finish(rows: list[tuple[int, Row]], bad: set[int]) -> tuple[list[Row], set[int]]:
    first: set[str] = set()
    for number, row in rows:
        bad |= {number} if row[0] in first else set()
        first.add(row[0])
    return [row for _, row in rows], bad


def reference_json_lines(data: bytes) -> tuple[list[Row], set[int]]:
    rows, bad = [], set()
    for number, line in enumerate(data.split(b"\n"), 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip(b" \t\r"):
            continue
        try:
            rows.append((number, check(strictly(line.decode()), number)))
        except (Bad, UnicodeDecodeError):
            bad.add(number)
    return finish(rows, bad)


def reference_csv(data: bytes) -> tuple[list[Row], set[int]]:
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    lines = text.split("\n")
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    header, rows, bad = None, [], set()
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return finish(rows, bad)
        except csv.Error:
            rows, bad = finish(rows, bad)
            return rows, bad | {number}
        not_utf8 = [
            line
            for line in range(number, reader.line_num + 1)
            if re.search("[\ud800-\udfff]", lines[line - 1])
        ]
        if not cells:
            continue
        if header is None:
            header = cells
            if not_utf8 or len(set(header)) < len(header):
                return [], {not_utf8[0] if not_utf8 else number}
            continue
        if not_utf8:
            bad.add(not_utf8[0])
            continue
        try:
            if len(cells) != len(header):
                raise Bad
            rows.append((number, check(dict(zip(header, cells, strict=True)), number)))
        except Bad:
            bad.add(number)


def reference_parquet(data: bytes) -> tuple[list[Row], set[int]]:
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
        names = table.column_names
        pyarrow.parquet.ParquetFile(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        raise Bad from None
    if len(set(names)) < len(names):
        raise Bad
    plain, bad = [], set()
    for number in range(1, table.num_rows + 1):
        try:
            cells = [as_json(column[number - 1].as_py()) for column in table.columns]
            plain.append((number, dict(zip(names, cells, strict=True))))
        except (Bad, ValueError, OverflowError):
            bad.add(number)
    if bad:
        return [], bad
    rows = []
    for number, cells in plain:
        try:
            rows.append((number, check(cells, number)))
        except Bad:
            bad.add(number)
    return finish(rows, bad)


def as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise Bad
    if isinstance(value, list | dict):
        return (
            [as_json(inner) for inner in value]
            if isinstance(value, list)
            else {key: as_json(inner) for key, inner in value.items()}
        )
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise Bad


def reference_gunzip(data: bytes) -> bytes:
    """RFC 1952, one member after the other; zeros may pad the end."""
    if not data:
        raise Bad
    content = b""
    while data := data.lstrip(b"\0") if content or data[:1] != b"\0" else data:
        if data[:3] != b"\x1f\x8b\x08" or len(data) < 10:
            raise Bad
        flags, at = data[3], 10
        if flags & 4:
            at += 2 + int.from_bytes(data[at : at + 2], "little")
        for flag in (8, 16):
            if flags & flag:
                end = data.find(b"\0", at)
                if end < 0:
                    raise Bad
                at = end + 1
        at += 2 * bool(flags & 2)
        inflate = zlib.decompressobj(-15)
        try:
            member = inflate.decompress(data[at:])
        except zlib.error:
            raise Bad from None
        rest = inflate.unused_data
        sums = zlib.crc32(member).to_bytes(4, "little"), len(member).to_bytes(4, "little")
        if not inflate.eof or rest[:8] != b"".join(sums):
            raise Bad
        content, data = content + member, rest[8:]
    return content


def reference_unzstd(data: bytes) -> bytes:
    """RFC 8878: the end of each frame is found by its blocks, and Arrow decompresses it."""
    if not data:
        raise Bad
    content = b""
    while data:
        if len(data) >= 8 and data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5:
            end = 8 + int.from_bytes(data[4:8], "little")
        elif data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 5:
            flags = data[4]
            single = flags >> 5 & 1
            end = 5 + (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
            last = False
            while not last:
                block = int.from_bytes(data[end : end + 3], "little")
                last = bool(block & 1) or end > len(data)
                end += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
            end += 4 * (flags >> 2 & 1)
        else:
            raise Bad
        if end > len(data):
            raise Bad
        try:
            frame = pyarrow.BufferReader(data[:end])
            content += pyarrow.input_stream(frame, compression="zstd").read()
        except OSError:
            raise Bad from None
        data = data[end:]
    return content


def some_parquet(rng: random.Random) -> bytes:
    """Four rows, some cells of which are wrong; written in one of several ways."""
    columns = {
        "id": ["a", "b", "c", "d"],
        "input": ["uno", "añejo\u2028☎", 'dice "hola"', "cuatro"],
        "output": ["{}", '{"n": 1}', '{"n": {"k": [true, null]}}', '{"m": 1.5}'],
        "price": [1.5, None, -0.0, 1e300],
        "day": [datetime.datetime(2024, 1, day) for day in range(1, 5)],
        "tags": [["x"], [], None, ["y", "z"]],
    }
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        column = rng.choice(list(columns))
        wrong = {
            "id": ["a", "", None],
            "input": [None, " ", "\u0085"],
            "output": [None, "5", "{", '{"a": 1, "a": 1}', "NaN"],
            "price": [math.nan, math.inf],
        }.get(column, [None])
        columns[column][rng.randrange(4)] = rng.choice(wrong)
    if rng.random() < 0.1:
        columns["price"] = [b"1", None, b"\xff", b""]
    table = pyarrow.table(columns)
    if rng.random() < 0.2:
        chosen = rng.choice(["input", "id", "output"])
        broken = table[chosen].combine_chunks().cast("binary").to_pylist()
        broken[rng.randrange(4)] = rng.choice([b"\xff", b"\xed\xa0\x80", b"\xc3"])
        text = pyarrow.array(broken, "binary").view("string")
        table = table.set_column(table.column_names.index(chosen), chosen, text)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        table,
        sink,
        compression=rng.choice(["none", "snappy", "zstd"]),
        use_dictionary=rng.random() < 0.5,
        write_page_checksum=rng.random() < 0.5,
        row_group_size=rng.choice([1, 3, 100]),
    )
    return sink.getvalue()


def some_text(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        data = data.replace(b"\n", b"\r\n")
    if rng.random() < 0.2:
        data = b"\xef\xbb\xbf" + data
    return mutate(data, rng)


def some_file(rng: random.Random) -> File:
    """A file of any kind, packed or not, wrong in its content, in its packing, or not at all."""
    kind = rng.choice([".jsonl", ".csv", ".parquet"])
    packing = rng.choice(["", ".gz", ".zst"])
    sound = {".jsonl": JSON_LINES, ".csv": CSV}
    spoil_bytes = rng.random() < 0.3
    if kind == ".parquet":
        data = some_parquet(rng)
        if spoil_bytes and not packing:
            data = mutate(data, rng)
    elif spoil_bytes and packing:
        data = sound[kind]
    else:
        data = some_text(rng, sound[kind])
    if packing:
        pack = {
            ".gz": gzip.compress,
            ".zst": zstandard.ZstdCompressor(write_checksum=rng.random() < 0.5).compress,
        }[packing]
        middle = rng.randrange(len(data) + 1) if rng.random() < 0.3 else 0
        data = (pack(data[:middle]) if middle else b"") + pack(data[middle:])
        if spoil_bytes:
            data = mutate(data, rng)
    return File(f"rows{kind}{packing}", data)


def reference(file: File) -> tuple[list[Row], set[int]]:
    """Return the rows and the numbers of the bad ones.

    Raises:
        Bad: The file as a whole cannot be read.
    """
    data = file.data
    if file.name.endswith(".gz"):
        data = reference_gunzip(data)
    if file.name.endswith(".zst"):
        data = reference_unzstd(data)
    readers = {
        "jsonl": reference_json_lines,
        "csv": reference_csv,
        "parquet": reference_parquet,
    }
    return readers[file.name.split(".")[1]](data)


def lines_of(error: DataError, name: str) -> tuple[int, int]:
    """Return the line or row that an error names, and how many rows it stands for."""
    match = re.fullmatch(
        rf"{re.escape(name)}, (?:line|row) (\d+)(?:, and (\d+) more like it)?", error.where
    )
    assert match, error.where
    return int(match[1]), 1 + int(match[2] or 0)


def compare(folder: Path, file: File) -> str:
    """Check one file against the reference; say what became of it."""
    path = folder / file.name
    path.write_bytes(file.data)
    try:
        rows, bad = reference(file)
    except Bad:
        with pytest.raises(DataError) as caught:
            list(load_rows(str(path), FieldsConfig()))
        assert re.fullmatch(rf"{re.escape(str(path))}(, behind row \d+)?", caught.value.where)
        return "unreadable"
    try:
        examples = list(load_rows(str(path), FieldsConfig()))
    except UserErrors as several:
        errors = several.errors
    except DataError as error:
        errors = (error,)
    else:
        assert not bad, file
        assert [(e.id, e.input, e.output, e.meta) for e in examples] == rows, file
        return "sound"
    named = dict(lines_of(error, str(path)) for error in errors)
    assert set(named) <= bad, file
    assert min(bad) in named, file
    assert sum(named.values()) == len(bad), file
    return "bad rows"


@pytest.mark.parametrize("num_files", [500, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_mutated_files_give_the_exact_rows_or_the_exact_lines(tmp_path, monkeypatch, num_files):
    # Tens of thousands of copies; none of them has to survive a power cut.
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    rng = random.Random(0)
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(num_files):
        file = some_file(rng)
        outcomes[file.name, compare(tmp_path, file)] += 1
        if number % 1000 == 0:
            shutil.rmtree(cache_dir("data"))
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"{name:17} {outcome:10} {count:6,}")
    assert outcomes.total() == num_files
    # All ends are met often, else the test would say little.
    for name in {name for name, _ in outcomes}:
        shares = [outcomes[name, outcome] for outcome in ("sound", "bad rows")]
        assert min(shares) > 0.02 * num_files / 9, name
    packed = [n for (name, o), n in outcomes.items() if o == "unreadable" and name != "rows.csv"]
    assert sum(packed) > 0.05 * num_files
