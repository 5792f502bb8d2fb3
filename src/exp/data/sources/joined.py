"""The examples of several files as one sequence, one file behind the other."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exp.data.sources.examples import Examples, selected_key
from exp.data.sources.faults import Faults, RowFault
from exp.data.sources.fields import OWN_IDS
from exp.errors import raise_collected
from exp.records import Example


class JoinedExamples(Examples):
    """Examples of several files, or some of them; 10 bytes of memory a row beside the files' own.

    Args:
        parts: The examples of each file.
        sources: (examples,) which part each comes from.
        rows: (examples,) where it stands there.
        content_key: Hash of all that decides the examples.
    """

    def __init__(
        self,
        parts: Sequence[Examples],
        sources: NDArray[np.int16],
        rows: NDArray[np.int64],
        content_key: str,
    ) -> None:
        self._parts = tuple(parts)
        self._sources = sources
        self._rows = rows
        self.content_key = content_key

    @property
    def name(self) -> str:
        """The files, as the user wrote them."""
        return ", ".join(part.name for part in self._parts)

    @property
    def sources(self) -> NDArray[np.int16]:
        return self._sources

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, index: int) -> Example:
        return self._parts[self._sources[index]].example(int(self._rows[index]))

    def place(self, index: int) -> str:
        return self._parts[self._sources[index]].place(int(self._rows[index]))

    def select(self, positions: NDArray[np.int64]) -> "JoinedExamples":
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        return JoinedExamples(
            self._parts,
            self._sources[positions],
            self._rows[positions],
            selected_key(self.content_key, positions),
        )


def join(parts: Sequence[Examples]) -> Examples:
    """Put the examples of several files together.

    Raises:
        DataError: An id of one file is there again in another.
        UserErrors: Several are.
    """
    if len(parts) == 1:
        return parts[0]
    sizes = [len(part) for part in parts]
    joined = JoinedExamples(
        parts,
        np.repeat(np.arange(len(parts), dtype=np.int16), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
        hashlib.sha256(":".join(part.content_key for part in parts).encode()).hexdigest(),
    )
    _check_ids(joined)
    return joined


def _check_ids(examples: JoinedExamples) -> None:
    """Find ids that several files have. Hashes keep memory flat; equal ones are compared in full.

    Raises:
        DataError: There is such an id.
        UserErrors: There are several.
    """
    hashes = np.fromiter((hash(example.id) for example in examples), dtype=np.int64)
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    suspects = np.flatnonzero(np.isin(hashes, hashes[first[counts > 1]]))
    seen: dict[str, int] = {}
    faults: dict[str, Faults] = {}
    for index in suspects.tolist():
        id_ = examples.example(index).id
        if id_ not in seen:
            seen[id_] = index
            continue
        file, place = examples.place(index).rsplit(", ", 1)
        reason = f'the id "{id_}" of {examples.place(seen[id_])} is there again'
        faults.setdefault(file, Faults(file)).add(RowFault(reason, OWN_IDS), place)
    raise_collected([error for found in faults.values() for error in found.errors()])
