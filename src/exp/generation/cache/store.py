"""Looking predictions up and keeping them, one row each, as they are finished."""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exp.config.schema import CacheConfig
from exp.generation.cache.database import (
    CacheError,
    Database,
    default_path,
    means_damage,
    open_database,
    replace_damaged,
)
from exp.generation.cache.key import KeyContext, Request, prediction_key
from exp.generation.cache.payload import checksum, decode, encode, is_intact
from exp.records import Prediction

# SQLite takes 999 parameters in its oldest builds.
_KEYS_PER_QUERY = 500
_DAY_MS = 24 * 3600 * 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lookup:
    """The predictions that were found, by row id, and the count of each outcome.

    Every row is a hit, a miss or stale. `num_damaged` of the misses are rows whose stored
    prediction was not what had been stored.
    """

    hits: dict[str, Prediction]
    num_misses: int = 0
    num_stale: int = 0
    num_damaged: int = 0

    @property
    def num_hits(self) -> int:
        return len(self.hits)

    def __str__(self) -> str:
        counts = f"{self.num_hits:,} hits, {self.num_misses:,} misses, {self.num_stale:,} stale"
        return counts + (f" ({self.num_damaged:,} damaged)" if self.num_damaged else "")


class PredictionCache:
    """One open prediction cache. It belongs to the thread that opened it.

    Once open, the cache never ends a run: what it cannot give is a miss, and what it cannot keep
    is counted in `num_not_stored`, both with a warning.
    """

    def __init__(self, database: Database, max_age_days: float, force_recompute: bool) -> None:
        self._database: Database | None = database
        self._max_age_days = max_age_days
        self._force_recompute = force_recompute
        self._silence_told = False
        self.num_not_stored = 0

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        max_age_days: float = 30,
        force_recompute: bool = False,
    ) -> Self:
        """Open the cache; a damaged file is set aside with a warning and a new one begun.

        Args:
            path: The file. None: predictions.sqlite in EXP_CACHE_DIR.
            max_age_days: Older predictions are stale.
            force_recompute: Nothing is found; what is stored replaces what was there.

        Raises:
            CacheError: The folder cannot be written, or another process blocks the file.
        """
        return cls(open_database(path or default_path()), max_age_days, force_recompute)

    @classmethod
    def from_config(cls, config: CacheConfig) -> Self | None:
        """Open the machine's cache as configured; None where it is not enabled."""
        if not config.enabled:
            return None
        return cls.open(None, config.max_age_days, config.force_recompute)

    def lookup(self, context: KeyContext, requests: Sequence[Request]) -> Lookup:
        """Find the predictions that were made of exactly these bytes.

        Requests with equal prompts find the same prediction, each under its own id.
        """
        if self._force_recompute or self._database is None:
            return Lookup({}, num_misses=len(requests))
        wanted = context.preimage()
        digest = hashlib.sha256(wanted).digest()
        by_key: dict[bytes, tuple[bytes, list[str]]] = {}
        for request in requests:
            preimage = request.preimage()
            key = prediction_key(digest, preimage)
            by_key.setdefault(key, (preimage, []))[1].append(request.id)

        oldest_ms = time.time() * 1000 - self._max_age_days * _DAY_MS
        hits: dict[str, Prediction] = {}
        num_stale = num_damaged = 0
        try:
            for key, context_sha256, created_ms, stored, payload, preimage in _rows(
                self._database.connection, digest, wanted, list(by_key)
            ):
                expected, ids = by_key.get(key, (None, []))
                intact = is_intact(key, created_ms, payload, stored)
                if not intact or preimage != expected or context_sha256 != digest:
                    num_damaged += len(ids) or 1
                elif created_ms < oldest_ms:
                    num_stale += len(ids)
                else:
                    hits.update((id, decode(payload, id)) for id in ids)
        except (sqlite3.Error, MemoryError) as error:
            self._recover(error)
        if num_damaged:
            log.warning(
                "%d stored predictions are damaged; they are computed anew. See: exp cache verify",
                num_damaged,
            )
        num_misses = len(requests) - len(hits) - num_stale
        return Lookup(hits, num_misses, num_stale, num_damaged)

    def store(
        self,
        context: KeyContext,
        finished: Iterable[tuple[Request, Prediction]],
        label: str = "",
    ) -> None:
        """Keep predictions, in place of older ones; when this returns they survive a kill.

        Args:
            context: What the predictions depend on, besides the rows.
            finished: Rows with their predictions. One transaction; small batches cost little.
            label: What `exp cache info` calls this context, such as model and run; not in the key.
        """
        preimage = context.preimage()
        digest = hashlib.sha256(preimage).digest()
        now_ms = time.time_ns() // 1_000_000
        rows = []
        for request, prediction in finished:
            asked = request.preimage()
            key, payload = prediction_key(digest, asked), encode(prediction)
            rows.append((key, digest, now_ms, checksum(key, now_ms, payload), payload, asked))
        for attempt in (1, 2):
            if self._database is None:
                break
            try:
                _write(self._database.connection, digest, preimage, label, rows)
                return
            except (sqlite3.Error, MemoryError) as error:
                if not self._recover(error) or attempt == 2:
                    break
        if not self.num_not_stored:
            log.warning(
                "Predictions are not kept in the cache; they are in this run's results only."
            )
        self.num_not_stored += len(rows)

    def close(self) -> None:
        if self._database is not None:
            self._database.connection.close()
            self._database = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _recover(self, error: Exception) -> bool:
        """Go on after a failure; tell whether there is a new file to go on with."""
        assert self._database is not None
        if not means_damage(error):
            if not self._silence_told:
                log.warning("The prediction cache does not answer: %s.", error)
            self._silence_told = True
            return False
        try:
            self._database = replace_damaged(self._database, str(error))
        except CacheError as unusable_error:
            log.warning("%s", unusable_error)
            self._database = None
        return self._database is not None


def _rows(
    connection: sqlite3.Connection, digest: bytes, preimage: bytes, keys: list[bytes]
) -> Iterator[tuple[Any, ...]]:
    """Read the rows of `keys`, unverified; none unless the stored context is the same bytes."""
    found = connection.execute("SELECT preimage FROM context WHERE sha256 = ?", (digest,))
    if found.fetchone() != (preimage,):
        return
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        yield from connection.execute(
            "SELECT key, context, created_ms, checksum, payload, request FROM prediction "
            f"WHERE key IN ({marks})",
            some,
        )


def _write(
    connection: sqlite3.Connection,
    digest: bytes,
    preimage: bytes,
    label: str,
    rows: list[tuple[bytes, bytes, int, bytes, bytes, bytes]],
) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute("SELECT preimage FROM context WHERE sha256 = ?", (digest,))
        if found.fetchone() != (preimage,):
            connection.execute(
                "INSERT OR REPLACE INTO context VALUES (?, ?, ?)", (digest, preimage, label)
            )
        connection.executemany("INSERT OR REPLACE INTO prediction VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
