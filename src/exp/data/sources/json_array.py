"""JSON: one array of objects. The text is held in memory for the length of the pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecoder
from typing import BinaryIO

from exp.data.sources.faults import RowFault
from exp.data.sources.fields import Row, json_type_name
from exp.data.sources.formats import (
    BYTE_ORDER_MARK,
    Scanned,
    decode_text,
    first_bad_byte,
    parse_row,
)
from exp.data.sources.strict_json import BadJson, parse_json_at, skip_blanks

# Finds the end of a value that is well formed but refused, like one with a duplicate key.
_LENIENT = JSONDecoder()


@dataclass(frozen=True)
class JsonArray:
    """Rows are numbered by their place in the array, for several may share a line."""

    unit: str = "row"

    def scan(self, file: BinaryIO) -> Iterator[Scanned]:
        data = file.read()
        mark = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
        try:
            text = decode_text(data[mark:], mark)
        except RowFault as fault:
            line = 1 + data[: first_bad_byte(data)].count(b"\n")
            yield Scanned(0, 0, 1, f"line {line}", fault)
            return
        del data
        yield from _scan_array(text, mark)

    def decode(self, data: bytes) -> Row:
        return parse_row(data.decode("utf-8"))


def _scan_array(text: str, first_byte: int) -> Iterator[Scanned]:
    """Yield the elements of an array; stop at the first that does not end in a known place."""
    cursor = _Cursor(text, first_byte)
    position = skip_blanks(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        fix = "rename it to .jsonl if it holds one object a line, else put the objects in [ ]"
        yield cursor.fault(position, 1, RowFault("the file is not an array of objects", fix))
        return
    position = skip_blanks(text, position + 1)
    number = 0
    closed = text[position : position + 1] == "]"
    while not closed:
        number += 1
        start = position
        row: Row | RowFault
        try:
            value, position = parse_json_at(text, start)
            row = (
                value
                if isinstance(value, dict)
                else RowFault(f"the row is {json_type_name(value)}, not a JSON object")
            )
        except BadJson as error:
            if error.position is not None:
                yield cursor.fault(error.position, number, _not_json(error, text))
                return
            row = RowFault(f"not JSON: {error.reason}")
            try:
                _, position = _LENIENT.raw_decode(text, start)
            except (ValueError, RecursionError):
                yield cursor.fault(start, number, row)
                return
        yield cursor.row(start, position, number, row)
        position = skip_blanks(text, position)
        mark = text[position : position + 1]
        if mark not in (",", "]") or not mark:
            reason = "expecting ',' or ']' behind an element of the array"
            yield cursor.fault(position, number, _not_json(BadJson(reason, position), text))
            return
        closed = mark == "]"
        if not closed:
            position = skip_blanks(text, position + 1)
    position = skip_blanks(text, position + 1)
    if position != len(text):
        reason = "more text after the end of the array"
        yield cursor.fault(position, number, _not_json(BadJson(reason, position), text))


def _not_json(error: BadJson, text: str) -> RowFault:
    position = error.position or 0
    column = position - text.rfind("\n", 0, position)
    return RowFault(f"not JSON at column {column}: {error.reason}")


class _Cursor:
    """Turns places in a text, asked for in rising order, into bytes and lines."""

    def __init__(self, text: str, first_byte: int) -> None:
        self._text = text
        self._position = 0
        self._byte = first_byte
        self._line = 1

    def row(self, start: int, end: int, number: int, row: Row | RowFault) -> Scanned:
        self._move(start)
        first_byte, line = self._byte, self._line
        self._move(end)
        return Scanned(first_byte, self._byte, number, f"line {line} (row {number})", row)

    def fault(self, position: int, number: int, fault: RowFault) -> Scanned:
        self._move(position)
        return Scanned(self._byte, self._byte, number, f"line {self._line}", fault)

    def _move(self, position: int) -> None:
        passed = self._text[self._position : position]
        self._byte += len(passed.encode())
        self._line += passed.count("\n")
        self._position = position
