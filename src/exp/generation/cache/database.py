"""The SQLite file behind the prediction cache: opening it, and setting a damaged one aside.

The file is shared by every process on the machine. Write-ahead logging lets them read while one
writes, and a killed writer's transaction is there whole or not at all.
"""

import logging
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from exp.cachedir import cache_dir
from exp.errors import UserError

FILE_NAME = "predictions.sqlite"
"""A change of the tables takes a new file name, so that two versions of exp do not fight."""

BUSY_TIMEOUT_SECONDS = 30

WITHOUT = "cache.enabled=false"
"""How to go on without a cache."""

_APPLICATION_ID = 0x65787030
_TABLES = {
    "context": "CREATE TABLE context (sha256 BLOB PRIMARY KEY, preimage BLOB, label TEXT)",
    "prediction": (
        "CREATE TABLE prediction (key BLOB PRIMARY KEY, context BLOB, created_ms INTEGER, "
        "checksum BLOB, payload BLOB, request BLOB)"
    ),
}
# Refusals that say nothing about the content: another writer, a full or read-only disk, rights.
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}

log = logging.getLogger(__name__)


class CacheError(UserError):
    """The prediction cache cannot be used; predictions can still be computed without it."""


class DamagedError(Exception):
    """The file is not an intact cache: cut, altered, or another program's."""


@dataclass(frozen=True, slots=True)
class Database:
    """An open connection, and which file it belongs to, whatever its path means by now."""

    connection: sqlite3.Connection
    path: Path
    inode: int


def default_path() -> Path:
    """Return the file that all runs on this machine share.

    Raises:
        CacheError: Its folder cannot be made.
    """
    try:
        return cache_dir() / FILE_NAME
    except UserError as error:
        raise CacheError(error.what, where=error.where, fix=f"{WITHOUT}, or {error.fix}") from error


def open_database(path: Path) -> Database:
    """Open the cache, made if it is not there; a damaged file is set aside for a new one.

    Raises:
        CacheError: The folder cannot be written, or another process blocks the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            try:
                return _connect(path)
            except DamagedError as error:
                _set_aside(path, str(error))
                return _connect(path)
    except (OSError, sqlite3.Error, Timeout, DamagedError) as error:
        raise unusable(path, error) from error


def open_existing(path: Path) -> Database:
    """Open the cache as it is.

    Raises:
        DamagedError: It is not an intact cache.
        CacheError: It cannot be opened for another reason.
    """
    try:
        with _lock(path):
            return _connect(path)
    except (OSError, sqlite3.Error, Timeout) as error:
        raise unusable(path, error) from error


def replace_damaged(database: Database, reason: str) -> Database:
    """Set aside a file that turned out damaged while in use, unless another process just did.

    Raises:
        CacheError: No new file can be opened.
    """
    database.connection.close()
    path = database.path
    try:
        with _lock(path):
            if path.exists() and path.stat().st_ino == database.inode:
                _set_aside(path, reason)
    except (OSError, Timeout) as error:
        raise unusable(path, error) from error
    return open_database(path)


def means_damage(error: Exception) -> bool:
    """Tell a damaged file from one that is only busy, full, or out of reach."""
    if isinstance(error, MemoryError):
        # A damaged length field makes SQLite ask for absurd amounts.
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    return code is None or code & 0xFF not in _UNAVAILABLE


def set_aside_files(path: Path) -> list[Path]:
    """List the damaged files that were set aside."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def unusable(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"The prediction cache cannot be used: {error}.",
        where=str(path),
        fix=f"{WITHOUT}, or EXP_CACHE_DIR=<a folder that can be written>",
    )


def explain(error: Exception, path: Path) -> DamagedError | CacheError:
    """Turn a failure of SQLite into what it means for the caller."""
    return DamagedError(str(error)) if means_damage(error) else unusable(path, error)


def _lock(path: Path) -> FileLock:
    """Let one process at a time create the file or set it aside; the kernel frees a dead one's."""
    return FileLock(f"{path}.lock", timeout=BUSY_TIMEOUT_SECONDS)


def _connect(path: Path) -> Database:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        # A damaged file can have text that is not UTF-8 in any column.
        connection.text_factory = bytes
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        _check_or_create(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # A commit survives a kill; a power cut may cost the last ones, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        # A file that cannot be written is noticed now, and not when the first predictions are done.
        # Only a write shows it: BEGIN IMMEDIATE alone is content with a read-only file.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("ROLLBACK")
        return Database(connection, path, path.stat().st_ino)
    except (sqlite3.Error, MemoryError) as error:
        connection.close()
        if means_damage(error) or _read_only_by_content(error, path):
            raise DamagedError(str(error)) from error
        raise
    except BaseException:
        connection.close()
        raise


def _read_only_by_content(error: Exception, path: Path) -> bool:
    """Tell whether SQLite refuses to write, but the system would not: an altered file header."""
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_READONLY and all(
        os.access(p, os.W_OK) for p in (path, path.parent)
    )


def _check_or_create(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    ).fetchall()
    if application == 0 and not found:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.values():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute("COMMIT")
        return
    expected = {(name.encode(), sql.encode()) for name, sql in _TABLES.items()}
    if application != _APPLICATION_ID or set(found) != expected:
        raise DamagedError("it is not a prediction cache")


def _set_aside(path: Path, reason: str) -> None:
    """Rename the file with its log, so that nothing is lost and nobody trips over it again.

    SQLite notices in other processes that their file has moved and leaves the new one's log alone.
    """
    number = 1 + len(set_aside_files(path))
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    log.warning(
        "The prediction cache %s is damaged (%s). It was renamed to %s and a new one begun; its "
        "predictions are computed anew.",
        path,
        reason,
        aside.name,
    )
