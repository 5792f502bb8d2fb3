"""Bytes of a file that many processes read at once and that nobody may change meanwhile."""

import hashlib
import os
import weakref
from pathlib import Path
from typing import Any

from exp.errors import DataError


class DataFile:
    """Reads ranges of a file; opens it when first asked, once in each process.

    No memory map: where a mapped file is cut short, the process dies without a word.

    Args:
        path: The file.
        name: What the user calls it, for errors.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._stamp = _stamp(path.stat())
        self._descriptor: int | None = None

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to, not including, `end`.

        Raises:
            DataError: The file was cut short, or had changed when it was opened.
        """
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        data = os.pread(self._descriptor, end - start, start)
        if len(data) != end - start:
            raise self.changed()
        return data

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check_unchanged(self) -> None:
        """Compare the file on disk with what it was when this object was made.

        Raises:
            DataError: Size or time of change differ, or the file is gone.
        """
        try:
            if _stamp(self.path.stat()) == self._stamp:
                return
        except OSError:
            pass
        raise self.changed()

    def changed(self) -> DataError:
        return DataError(
            "The file was changed or removed while it was in use.",
            where=self.name,
            fix="run the command again, and leave the file alone meanwhile",
        )

    def _open(self) -> None:
        self.check_unchanged()
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns
