"""Mutated files give the exact rows, or an error with the exact file and lines."""

import csv
import io
import json
import random
import re
from typing import Any

import pytest

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
    pass


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


def lines_of(error: DataError, name: str) -> tuple[int, int]:
    """Return the line that an error names, and how many rows it stands for."""
    match = re.fullmatch(
        rf"{re.escape(name)}, line (\d+)(?:, and (\d+) more like it)?", error.where
    )
    assert match, error.where
    return int(match[1]), 1 + int(match[2] or 0)


def compare(path, data: bytes, reference) -> bool:
    """Check one file against the reference; say whether it was sound."""
    path.write_bytes(data)
    rows, bad = reference(data)
    try:
        examples = list(load_rows(str(path), FieldsConfig()))
    except UserErrors as several:
        errors = several.errors
    except DataError as error:
        errors = (error,)
    else:
        assert not bad, data
        assert [(e.id, e.input, e.output, e.meta) for e in examples] == rows, data
        return True
    named = dict(lines_of(error, str(path)) for error in errors)
    assert set(named) <= bad, data
    assert min(bad) in named, data
    assert sum(named.values()) == len(bad), data
    return False


@pytest.mark.parametrize("num_mutations", [500, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "data", "reference"),
    [("rows.jsonl", JSON_LINES, reference_json_lines), ("rows.csv", CSV, reference_csv)],
    ids=["jsonl", "csv"],
)
def test_mutated_files_give_the_exact_rows_or_the_exact_lines(
    tmp_path, name, data, reference, num_mutations
):
    rng = random.Random(0)
    outcomes = [
        compare(tmp_path / name, mutate(data, rng), reference) for _ in range(num_mutations)
    ]
    # Both ends are met often, else the test would say little.
    assert 0.02 < sum(outcomes) / num_mutations < 0.9
