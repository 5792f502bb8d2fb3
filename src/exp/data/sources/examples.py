"""The sequence of examples of a split: an index in memory, the rows on disk."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from exp.data.sources.datafile import DataFile
from exp.data.sources.faults import RowFault
from exp.data.sources.fields import RowReader
from exp.data.sources.formats import Format
from exp.records import Example


class Examples(Sequence[Example]):
    """Examples of one file or of some of its rows; 24 bytes of memory a row.

    A row is parsed when it is asked for. Can be pickled: the copy opens the file anew, and refuses
    one that has changed.

    Args:
        file: Where the rows are.
        format: How the bytes of a row become a row.
        reader: How a row becomes an example.
        starts: First byte of each row.
        ends: The byte after the last one of each row.
        numbers: Line or rank of each row in its file, from 1.
        content_key: Hash of all that decides the examples; caches downstream build on it.
    """

    def __init__(
        self,
        file: DataFile,
        format: Format,
        reader: RowReader,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        numbers: NDArray[np.int64],
        content_key: str,
    ) -> None:
        self._file = file
        self._format = format
        self._reader = reader
        self._starts = starts
        self._ends = ends
        self._numbers = numbers
        self.content_key = content_key

    @property
    def name(self) -> str:
        """The file, as the user wrote it."""
        return self._file.name

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        data = self._file.read(int(self._starts[index]), int(self._ends[index]))
        try:
            return self._reader.example(self._format.decode(data), int(self._numbers[index]))
        except (RowFault, UnicodeDecodeError):
            # Every row was read once before, so its bytes are others now.
            raise self._file.changed() from None

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self):,} examples of {self.name}>"

    def place(self, index: int) -> str:
        """Say where an example stands in its file, for messages about it."""
        return f"{self.name}, {self._format.unit} {self._numbers[index]}"

    def select(self, positions: NDArray[np.int64]) -> "Examples":
        """Return the examples at these positions, in this order."""
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        chosen = hashlib.sha256(positions.tobytes()).hexdigest()
        return Examples(
            self._file,
            self._format,
            self._reader,
            self._starts[positions],
            self._ends[positions],
            self._numbers[positions],
            hashlib.sha256(f"{self.content_key}:{chosen}".encode()).hexdigest(),
        )
