"""Files and folders that are there whole or not at all, after a kill and after a power cut.

Everything is staged beside its target (one file system, so that the rename is atomic), synced,
renamed, and then the folder that holds the name is synced. A killed writer leaves entries that
begin with `STAGING_PREFIX`, which no reader looks at and `clean_staging` removes.

POSIX only: folders are opened, locked and synced.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from exp.errors import UserError

STAGING_PREFIX = ".staging-"

_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}
_STORAGE_FAILURES = _OUT_OF_SPACE | {errno.EFBIG, errno.EIO, errno.EROFS}


class PublishError(UserError):
    """A file could not be stored; what was there before is untouched."""

    exit_code = 1


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace the content of `path` by `data`; readers see the old content or the new.

    Missing parent folders are made. Text is written as UTF-8.

    Raises:
        PublishError: The storage refused; the old content is still there.
    """
    content = data.encode() if isinstance(data, str) else data
    staging = _staging_path(path.parent)
    with _explained(path, len(content)):
        _make_folder(path.parent)
        with _writing_in(path.parent) as parent:
            try:
                write_file(staging, content)
                staging.replace(path)
            except BaseException:
                with suppress(OSError):
                    staging.unlink()
                raise
            os.fsync(parent)


@contextmanager
def publish_folder(target: Path, bytes_needed: int | None = None) -> Iterator[Path]:
    """Fill the folder that this yields; it becomes `target` when the block ends without an error.

    Whatever the block wrote, by any library, is synced file by file before the rename.

    Args:
        target: Must not exist. Missing parent folders are made.
        bytes_needed: Size of the whole, for the error message. None: as far as it came.

    Raises:
        PublishError: The target exists, or the storage refused. There is no target then, unless
            the very last sync failed.
    """
    staging = _staging_path(target.parent)
    _refuse_existing(target)
    with ExitStack() as stack:
        with _explained(target, bytes_needed):
            _make_folder(target.parent)
            parent = stack.enter_context(_writing_in(target.parent))
            staging.mkdir()
        try:
            try:
                yield staging
            except OSError as error:
                if error.errno not in _STORAGE_FAILURES:
                    raise
                raise _explain(error, target, bytes_needed or _size(staging)) from error
            with _explained(target, bytes_needed):
                _sync_tree(staging)
                # A rename would take the place of an empty folder without a word.
                _refuse_existing(target)
                staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        with _explained(target, bytes_needed):
            os.fsync(parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and sync its content; for files inside a folder that is being published.

    Raises:
        OSError: The storage refused; `publish_folder` turns it into a PublishError.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a kill in between leaves it whole or leaves no trace of its name."""
    doomed = _staging_path(path.parent)
    with _explained(path, None), _writing_in(path.parent) as parent:
        path.rename(doomed)
        os.fsync(parent)
        shutil.rmtree(doomed)


def clean_staging(parent: Path) -> list[Path]:
    """Remove what killed writers left directly in `parent`; return what was removed.

    While anybody writes in the folder nothing is removed, so this is safe at any time. The same
    holds on file systems that cannot lock a folder (some network ones).
    """
    try:
        handle = os.open(parent, os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leftovers = sorted(parent.glob(f"{STAGING_PREFIX}*"))
        for path in leftovers:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    except OSError:
        return []
    finally:
        os.close(handle)
    return [path for path in leftovers if not path.exists()]


def _staging_path(parent: Path) -> Path:
    return parent / f"{STAGING_PREFIX}{secrets.token_hex(8)}"


@contextmanager
def _writing_in(parent: Path) -> Iterator[int]:
    """Hold `parent` open under a shared lock, which keeps `clean_staging` away until it is freed.

    The kernel frees the lock of a killed process.
    """
    handle = os.open(parent, os.O_RDONLY)
    try:
        # Where the file system has no locks, clean_staging gets none either and removes nothing.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield handle
    finally:
        os.close(handle)


def _make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and sync the folder that holds each new name."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    _sync(path.parent)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise PublishError(
            f"{target} exists already and is never written over.",
            where=str(target),
            fix=f"rm -r {target}, or choose another name",
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _explained(path: Path, bytes_needed: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explain(error, path, bytes_needed) from error


def _explain(error: OSError, path: Path, bytes_needed: int | None) -> PublishError:
    needed = "" if bytes_needed is None else f"; {bytes_needed:,} bytes are needed"
    fix = "make the folder writable, or choose another one"
    if error.errno in _OUT_OF_SPACE:
        needed += f", {_free_bytes(path):,} are free on the disk"
        fix = f"free space below {path.parent}, or choose a folder on another disk"
    elif error.errno == errno.EFBIG:
        fix = "raise the limit on the size of files (ulimit -f unlimited)"
    elif error.errno == errno.EIO:
        fix = "look at the disk (dmesg), or choose a folder on another one"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return PublishError(f"Cannot write {path}: {reason}{needed}.", where=str(path), fix=fix)


def _free_bytes(path: Path) -> int:
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(existing).free
