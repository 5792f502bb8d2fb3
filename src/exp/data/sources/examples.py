"""The sequence of examples of a split: an index in memory, the rows on disk."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from exp.data.sources.datafile import DataFile
from exp.data.sources.faults import RowFault
from exp.data.sources.fields import RowReader
from exp.data.sources.formats import Format
from exp.records import Example


class Examples(Sequence[Example], ABC):
    """Examples of one or more files, or some of them; each is read when it is asked for.

    Attributes:
        content_key: Hash of all that decides the examples; caches downstream build on it.
    """

    content_key: str

    @property
    @abstractmethod
    def name(self) -> str:
        """The file or files, as the user wrote them."""

    @property
    @abstractmethod
    def sources(self) -> NDArray[np.int16]:
        """(examples,) the number of the file that each comes from, from 0."""

    @abstractmethod
    def example(self, index: int) -> Example:
        """Read one example; indices count from 0 up."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Say where an example stands in its file, for messages about it."""

    @abstractmethod
    def select(self, positions: NDArray[np.int64]) -> "Examples":
        """Return the examples at these positions, in this order."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self.example(range(len(self))[index])

    def __iter__(self) -> Iterator[Example]:
        return (self.example(index) for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self):,} examples of {self.name}>"


class FileExamples(Examples):
    """Examples of one file; 24 bytes of memory a row.

    Can be pickled: the copy opens the file anew, and refuses one that has changed.

    Args:
        file: Where the rows are.
        format: How the bytes of a row become a row.
        reader: How a row becomes an example.
        starts: First byte of each row.
        ends: The byte after the last one of each row.
        numbers: Line or rank of each row in its file, from 1.
        content_key: Hash of all that decides the examples.
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

    @property
    def sources(self) -> NDArray[np.int16]:
        """All zero."""
        return np.zeros(len(self), dtype=np.int16)

    def __len__(self) -> int:
        return len(self._starts)

    def example(self, index: int) -> Example:
        data = self._file.read(int(self._starts[index]), int(self._ends[index]))
        try:
            return self._reader.example(self._format.decode(data), int(self._numbers[index]))
        except (RowFault, UnicodeDecodeError):
            # Every row was read once before, so its bytes are others now.
            raise self._file.changed() from None

    def place(self, index: int) -> str:
        return f"{self.name}, {self._format.unit} {self._numbers[index]}"

    def select(self, positions: NDArray[np.int64]) -> "FileExamples":
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        return FileExamples(
            self._file,
            self._format,
            self._reader,
            self._starts[positions],
            self._ends[positions],
            self._numbers[positions],
            selected_key(self.content_key, positions),
        )


def selected_key(content_key: str, positions: NDArray[np.int64]) -> str:
    """Return the content key of some of the examples of a sequence."""
    chosen = hashlib.sha256(positions.tobytes()).hexdigest()
    return hashlib.sha256(f"{content_key}:{chosen}".encode()).hexdigest()
