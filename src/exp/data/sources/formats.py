"""What a file format must tell: where each row begins and ends, and how to read one row again."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from exp.data.sources.faults import RowFault
from exp.data.sources.fields import Row, json_type_name
from exp.data.sources.strict_json import BadJson, parse_json

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Scanned(NamedTuple):
    """One row of a file, good or bad."""

    start: int
    """First byte of the row in the file."""
    end: int
    """The byte after its last one."""
    number: int
    """What the row is called by: its line in formats by line, else its rank, from 1."""
    place: str
    """The same in words, for errors."""
    row: Row | RowFault


class Format(Protocol):
    """Reads the rows of one file. Holds no open file, so that it can go to other processes."""

    @property
    def unit(self) -> str:
        """What `Scanned.number` counts: line or row."""
        ...

    def scan(self, file: BinaryIO) -> Iterator[Scanned]:
        """Go through all rows of a file, from its first byte.

        A bad row does not end the pass, unless nobody can tell where the next one begins.
        """
        ...

    def decode(self, data: bytes) -> Row:
        """Parse the bytes of a row that `scan` found good."""
        ...


def decode_text(data: bytes, offset: int) -> str:
    """Decode UTF-8.

    Raises:
        RowFault: It is not; `offset`, the place of `data` in the file, gives the exact byte.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(data, error.start, offset) from None


def not_utf8(data: bytes, position: int, offset: int) -> RowFault:
    """Name the byte at `position` of `data`, which begins at `offset` of its file."""
    fix = "save the file as UTF-8"
    if offset == 0 and data.startswith(_UTF16_MARKS):
        fix = "iconv -f UTF-16 -t UTF-8 old > new; the file looks like UTF-16"
    return RowFault(
        f"byte {offset + position:,} of the file, 0x{data[position]:02x}, is not UTF-8", fix
    )


def first_bad_byte(data: bytes) -> int | None:
    """Return the place of the first byte that is not UTF-8; None if all are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def parse_row(text: str) -> Row:
    """Parse a JSON object.

    Raises:
        RowFault: The text is not JSON, or not an object.
    """
    try:
        value = parse_json(text)
    except BadJson as error:
        at = "" if error.position is None else f" at column {error.position + 1}"
        raise RowFault(f"not JSON{at}: {error.reason}") from None
    if not isinstance(value, dict):
        raise RowFault(f"the row is {json_type_name(value)}, not a JSON object")
    return value
