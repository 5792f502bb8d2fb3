"""What `exp cache` does: count, verify and remove what the prediction cache holds."""

import hashlib
import json
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from exp.generation.cache.database import (
    DamagedError,
    explain,
    means_damage,
    open_existing,
    set_aside_files,
    unusable,
)
from exp.generation.cache.key import prediction_key
from exp.generation.cache.payload import is_intact

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Group:
    """Predictions of one model with one adapter."""

    label: str
    base_weights: str
    adapter: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is in the cache. Times are seconds since the epoch; None where there is nothing."""

    path: Path
    size_bytes: int
    count: int
    oldest: float | None
    newest: float | None
    groups: tuple[Group, ...]
    set_aside: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """How many predictions were read, and what is wrong, by kind."""

    count: int
    problems: dict[str, int]


def take_inventory(path: Path) -> Inventory:
    """Count predictions by model and adapter.

    Raises:
        DamagedError: The file is not an intact cache.
        CacheError: The file is out of reach.
    """
    logs = ("-wal", "-shm")  # set aside with their file
    aside = tuple(file for file in set_aside_files(path) if not file.name.endswith(logs))
    if not path.exists():
        return Inventory(path, 0, 0, None, None, (), aside)
    with closing(open_existing(path).connection) as connection:
        try:
            contexts = dict(connection.execute("SELECT sha256, preimage FROM context"))
            labels = dict(connection.execute("SELECT sha256, label FROM context"))
            # Damaged values can be of any type; such rows count, but say nothing of time.
            counts = connection.execute(
                "SELECT context, count(*), min(known_ms), max(known_ms) FROM (SELECT context, "
                "CASE typeof(created_ms) WHEN 'integer' THEN created_ms END AS known_ms "
                "FROM prediction) GROUP BY context"
            ).fetchall()
        except (sqlite3.Error, MemoryError) as error:
            raise explain(error, path) from error
    groups: Counter[tuple[str, str, str | None]] = Counter()
    for digest, count, _, _ in counts:
        base, adapter = _models(contexts.get(digest))
        label = labels.get(digest)
        name = label.decode(errors="replace") if isinstance(label, bytes) else ""
        groups[name, base, adapter] += count
    return Inventory(
        path=path,
        size_bytes=_size(path),
        count=sum(row[1] for row in counts),
        oldest=min((row[2] / 1000 for row in counts if row[2] is not None), default=None),
        newest=max((row[3] / 1000 for row in counts if row[3] is not None), default=None),
        groups=tuple(Group(*key, count) for key, count in groups.most_common()),
        set_aside=aside,
    )


def verify(path: Path) -> Verification:
    """Read every prediction and compare it with its checksum, its key and its context.

    Raises:
        CacheError: The file is out of reach.
    """
    if not path.exists():
        return Verification(0, {})
    problems: Counter[str] = Counter()
    count = 0
    try:
        with closing(open_existing(path).connection) as connection:
            for (finding,) in connection.execute("PRAGMA integrity_check(100)"):
                if finding != b"ok":
                    problems["damage to the file's structure"] += 1
            intact = set()
            for digest, preimage in connection.execute("SELECT sha256, preimage FROM context"):
                if isinstance(preimage, bytes) and hashlib.sha256(preimage).digest() == digest:
                    intact.add(digest)
                else:
                    problems["damaged contexts"] += 1
            for key, context, created_ms, checksum, payload, request in connection.execute(
                "SELECT key, context, created_ms, checksum, payload, request FROM prediction"
            ):
                count += 1
                if not is_intact(key, created_ms, payload, checksum):
                    problems["damaged predictions"] += 1
                elif context not in intact:
                    problems["predictions without an intact context"] += 1
                elif not isinstance(request, bytes) or key != prediction_key(context, request):
                    problems["predictions under a wrong key"] += 1
    except DamagedError as error:
        problems[f"unreadable file ({error})"] += 1
    except (sqlite3.Error, MemoryError) as error:
        if not means_damage(error):
            raise unusable(path, error) from error
        problems[f"unreadable part ({error})"] += 1
    return Verification(count, dict(problems))


def clear(path: Path, older_than_days: float | None = None) -> int:
    """Remove predictions; without an age all of them, and all files that were set aside.

    Safe while others use the cache. A file too damaged to open is removed whole.

    Returns:
        How many predictions were removed; those in unreadable files do not count.
    """
    removed = 0
    if path.exists():
        try:
            removed = _delete(path, older_than_days)
        except DamagedError:
            if older_than_days is not None:
                raise
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
    if older_than_days is None:
        for aside in set_aside_files(path):
            aside.unlink(missing_ok=True)
    return removed


def _delete(path: Path, older_than_days: float | None) -> int:
    limit_ms = 2**62
    if older_than_days is not None:
        limit_ms = int(time.time() * 1000 - older_than_days * _DAY_MS)
    with closing(open_existing(path).connection) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            cursor = connection.execute("DELETE FROM prediction WHERE created_ms < ?", (limit_ms,))
            connection.execute(
                "DELETE FROM context WHERE sha256 NOT IN (SELECT DISTINCT context FROM prediction)"
            )
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            raise explain(error, path) from error
        # Only gives space back to the disk; while others read it has to wait for another time.
        with suppress(sqlite3.Error):
            connection.execute("VACUUM")
    return cursor.rowcount


def _models(preimage: object) -> tuple[str, str | None]:
    try:
        context = json.loads(preimage)  # type: ignore[arg-type]
        adapter = context["adapter"]
        return str(context["base_weights"]), None if adapter is None else str(adapter)
    except (ValueError, TypeError, KeyError):
        return "(damaged)", None


def _size(path: Path) -> int:
    files = (path.with_name(path.name + suffix) for suffix in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
