"""Keeping a tracker from ever failing, delaying or hanging the run that it mirrors."""

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from exp.redaction import redact, redact_json
from exp.training.tracker.base import RunFacts, Tracker

log = logging.getLogger(__name__)

# An hour of points at three per second; a tracker that is further behind is taken for dead.
MAX_WAITING = 10_000
MAX_REASON_CHARS = 300


class GuardedTracker:
    """Runs a tracker in a thread of its own, and goes on without it at its first failure.

    Calls return at once. Whatever goes wrong is one warning, after which the tracker is off; the
    points are in metrics.jsonl all the same. All text is redacted before the tracker sees it.

    Args:
        tracker: What does the work; used from the thread only, but for `abort`.
        timeout_seconds: How long `finish` waits for what is still to be written.
        max_waiting: Calls that may wait for the tracker before it is given up.
    """

    def __init__(
        self, tracker: Tracker, timeout_seconds: float, max_waiting: int = MAX_WAITING
    ) -> None:
        self._tracker = tracker
        self._timeout_seconds = timeout_seconds
        self._calls: queue.Queue[tuple[str, tuple[object, ...]]] = queue.Queue(max_waiting)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._on = True
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    @property
    def on(self) -> bool:
        """Whether points still reach the tracker."""
        return self._on

    def start(self, facts: RunFacts) -> None:
        redacted = RunFacts(
            name=redact(facts.name),
            project=redact(facts.project),
            entity=redact(facts.entity) if facts.entity else None,
            tags=tuple(redact_json(facts.tags)),
            config=redact_json(facts.config),
        )
        self._thread.start()
        self._put("start", redacted)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # Copied: the caller may go on using its dict, and tensors must not leave their thread.
        self._put("log", step, {redact(name): float(value) for name, value in values.items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._put("table", redact(name), redact_json(columns), redact_json(rows))

    def finish(self, status: str) -> None:
        """Wait until everything is written, but no longer than the timeout."""
        self._put("finish", status)
        if not self._ended.wait(self._timeout_seconds):
            self._turn_off(f"it did not finish within {self._timeout_seconds:g} s")

    def abort(self) -> None:
        self._turn_off("it was told to stop")

    def _put(self, call: str, *args: object) -> None:
        if not self._on:
            return
        try:
            self._calls.put_nowait((call, args))
        except queue.Full:
            self._turn_off(f"{self._calls.maxsize} calls were waiting for it")

    def _work(self) -> None:
        while not self._ended.is_set():
            call, args = self._calls.get()
            if not self._on:
                return
            try:
                getattr(self._tracker, call)(*args)
            # Whatever a tracker raises must stay here, SystemExit of a client library included.
            except BaseException as error:
                self._turn_off(f"{type(error).__name__}: {error}")
            if call == "finish":
                self._ended.set()

    def _turn_off(self, reason: str) -> None:
        with self._lock:
            was_on, self._on = self._on, False
        if not was_on:
            return
        log.warning(
            "The tracker is off for the rest of this run: %s. Nothing is lost: every point is in "
            "metrics.jsonl.",
            redact(" ".join(reason.split())[:MAX_REASON_CHARS]),
        )
        # Whoever waits, for a call or for the end, need not wait any longer.
        self._ended.set()
        with suppress(queue.Full):
            self._calls.put_nowait(("abort", ()))
        try:
            self._tracker.abort()
        except Exception as error:
            log.debug("The tracker could not be stopped: %s", redact(str(error)))
