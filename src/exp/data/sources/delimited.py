"""CSV and TSV: a header line with the columns' names, then one row each; all cells are strings."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from exp.data.sources.faults import RowFault
from exp.data.sources.fields import Row
from exp.data.sources.formats import (
    BYTE_ORDER_MARK,
    Scanned,
    first_bad_byte,
    not_utf8,
)

if TYPE_CHECKING:
    import _csv

LARGEST_CELL_CHARACTERS = 16 * 2**20
"""Longer cells are taken for a quote that was never closed. Python's own limit, 131,072, is too
small for documents."""


class _Lines:
    """Decoded lines for the csv module, which asks for as many as a row takes.

    A line that is not UTF-8 is passed on with its bad bytes in escaped form and remembered in
    `fault`: an exception would lose the rest of a row that spans several lines.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.end = 0
        self.fault: tuple[int, RowFault] | None = None
        self._number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        start = self.end
        self.end += len(line)
        self._number += 1
        if self._number == 1 and line.startswith(BYTE_ORDER_MARK):
            start += len(BYTE_ORDER_MARK)
            line = line[len(BYTE_ORDER_MARK) :]
        bad = first_bad_byte(line)
        if bad is not None and self.fault is None:
            self.fault = (self._number, not_utf8(line, bad, start))
        return line.decode("utf-8", errors="surrogateescape")


@dataclass(frozen=True)
class Delimited:
    """Quoted cells may span lines; a row is numbered by the line where it begins."""

    delimiter: str
    columns: tuple[str, ...]
    unit: str = "line"

    def scan(self, file: BinaryIO) -> Iterator[Scanned]:
        lines = _Lines(file)
        reader = _reader(lines, self.delimiter)
        header_is_past = False
        while True:
            start, line = lines.end, reader.line_num + 1
            row: Row | RowFault
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # Where a quote is wrong, nothing says where the next row begins.
                reason = f"not CSV: {error}; the rows below it were not read"
                yield Scanned(start, lines.end, line, f"line {line}", RowFault(reason))
                return
            fault, lines.fault = lines.fault, None
            if not cells:
                continue
            if not header_is_past:
                header_is_past = True
                continue
            if fault:
                bad_line, row = fault
                yield Scanned(start, lines.end, line, f"line {bad_line}", row)
                continue
            try:
                row = self._row(cells)
            except RowFault as ragged:
                row = ragged
            yield Scanned(start, lines.end, line, f"line {line}", row)

    def decode(self, data: bytes) -> Row:
        # One string, not its lines: str.splitlines would also split on U+2028 and the like.
        try:
            return self._row(next(_reader([data.decode("utf-8")], self.delimiter)))
        except csv.Error as error:
            raise RowFault(f"not CSV: {error}") from None

    def _row(self, cells: list[str]) -> Row:
        if len(cells) != len(self.columns):
            raise RowFault(
                f"the row has {_count(len(cells), 'cell')}, the header {len(self.columns)}",
                fix='put cells that hold a separator or a line break in double quotes: "a, b"',
            )
        return dict(zip(self.columns, cells, strict=True))


def read_header(
    file: BinaryIO, delimiter: str
) -> tuple[tuple[str, ...], tuple[str, RowFault] | None]:
    """Return the columns of a CSV file, and where and why its header is unusable, if it is."""
    lines = _Lines(file)
    reader = _reader(lines, delimiter)
    line = 1
    try:
        cells: list[str] = []
        while not cells:
            line = reader.line_num + 1
            cells = next(reader)
    except StopIteration:
        return (), None
    except csv.Error as error:
        return (), (f"line {line}", RowFault(f"not CSV: {error}; no row was read"))
    if lines.fault:
        return (), (f"line {lines.fault[0]}", lines.fault[1])
    for column in cells:
        if cells.count(column) > 1:
            return (), (f"line {line}", RowFault(f'the header has the column "{column}" twice'))
    return tuple(cells), None


def _reader(lines: Iterable[str], delimiter: str) -> "_csv.Reader":
    # The limit belongs to the whole process; raising it takes nothing from other users of csv.
    if csv.field_size_limit() < LARGEST_CELL_CHARACTERS:
        csv.field_size_limit(LARGEST_CELL_CHARACTERS)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
