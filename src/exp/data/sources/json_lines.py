"""JSON Lines: one JSON object a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from exp.data.sources.faults import RowFault
from exp.data.sources.fields import Row
from exp.data.sources.formats import BYTE_ORDER_MARK, Scanned, decode_text, parse_row

_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class JsonLines:
    """Lines end with the byte 0x0A alone: U+2028 and U+0085 may stand inside strings.

    Lines without anything but blanks are not rows; they count as lines.
    """

    unit: str = "line"

    def scan(self, file: BinaryIO) -> Iterator[Scanned]:
        end = 0
        for number, line in enumerate(file, 1):
            start, end = end, end + len(line)
            if number == 1 and line.startswith(BYTE_ORDER_MARK):
                start += len(BYTE_ORDER_MARK)
                line = line[len(BYTE_ORDER_MARK) :]
            if not line.strip(_BLANK):
                continue
            row: Row | RowFault
            try:
                row = parse_row(decode_text(line.rstrip(b"\r\n"), start))
            except RowFault as fault:
                row = fault
            yield Scanned(start, end, number, f"{self.unit} {number}", row)

    def decode(self, data: bytes) -> Row:
        return parse_row(data.decode("utf-8"))
