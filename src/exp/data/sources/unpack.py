"""Files that cannot be read in the middle -> plain copies in the cache folder, made once.

Copies that no command used for a month go when another one is made.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard
from filelock import FileLock

from exp.cachedir import cache_dir
from exp.data.expiry import mark_used, remove_unused
from exp.errors import DataError

_CHUNK_BYTES = 2**20
_COMPRESSED_CHUNK_BYTES = 2**14
"""Small, as all that a chunk holds comes out at once, maybe a hundred times as much."""

COMPRESSIONS = (".gz", ".zst")


def cached_copy(key: str, suffix: str, produce: Callable[[], Iterable[bytes]]) -> Path:
    """Return the file kept under a key; where there is none, write what `produce` yields.

    The file appears whole or not at all. Of several processes that ask at once, the first one makes
    it for all: a second copy in its place would look like a change of the data in use.

    Raises:
        DataError: The cache folder cannot be written.
    """
    try:
        path = cache_dir("data") / f"{key}{suffix}"
        if path.is_file():
            mark_used(path)
            return path
        remove_unused(path.parent)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                _write(path, produce)
    except OSError as error:
        raise DataError(
            f"A copy of the data cannot be kept in the cache folder: {error.strerror}.",
            where="EXP_CACHE_DIR",
            fix="EXP_CACHE_DIR=<a folder with room>",
        ) from None
    return path


def _write(path: Path, produce: Callable[[], Iterable[bytes]]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            for chunk in produce():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def unpack(path: Path, name: str) -> Path:
    """Decompress a .gz or .zst file into the cache folder, under the hash of its bytes.

    Raises:
        DataError: The file is damaged.
    """
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()

    def produce() -> Iterator[bytes]:
        with path.open("rb") as file:
            try:
                if not os.fstat(file.fileno()).st_size:
                    raise EOFError("it is empty")
                yield from (_gunzip(file) if path.suffix.lower() == ".gz" else _unzstd(file))
            except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
                raise DataError(
                    f"The compressed file is damaged: {error}.",
                    where=name,
                    fix="fetch or make the file again",
                ) from None

    return cached_copy(key, Path(path.stem).suffix.lower(), produce)


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    # A stream reader would take a file that is cut short for one that is complete.
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    frame_is_open = False
    while chunk := file.read(_COMPRESSED_CHUNK_BYTES):
        while chunk:
            yield frame.decompress(chunk)
            chunk = frame.unused_data
            frame_is_open = not frame.eof
            if frame.eof:
                frame = decompressor.decompressobj()
    if frame_is_open:
        raise EOFError("it ends too early")
