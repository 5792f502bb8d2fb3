"""The files of a run while it goes on: run.json, run.log, metrics.jsonl and the tracker."""

import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from exp import __version__
from exp.config.plain import config_hash, to_plain, write_config
from exp.config.schema import TrainConfig
from exp.errors import UserError
from exp.publish import write_atomically
from exp.records import Derived
from exp.redaction import RedactingFilter, redact, redact_json
from exp.rundir import RunDir
from exp.training.fit import FitOutcome
from exp.training.metrics_log import MetricsLog
from exp.training.tracker.base import RunFacts
from exp.training.tracker.open import open_tracker

PACKAGES = ("torch", "lightning", "transformers", "peft", "hydra-core", "omegaconf")

log = logging.getLogger(__name__)


class Session:
    """Open from the run folder's making to the command's end; says in run.json how it ended."""

    def __init__(self, run: RunDir, config: TrainConfig) -> None:
        self.run, self._config = run, config
        self._started = time.time()
        self._facts: dict[str, Any] = {}
        self._derived: list[Derived] = []
        self._handler = logging.FileHandler(run.log, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handler.addFilter(RedactingFilter())
        self._metrics = MetricsLog(run.metrics)
        self._tracker = open_tracker(config.tracker, run.tracker)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._handler)
        write_config(self.run.config, self._config)
        self.note(
            status="running",
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
            exp_version=__version__,
            python=platform.python_version(),
            platform=platform.platform(),
            versions={name: version(name) for name in PACKAGES},
            git=_git_commit(),
            arguments=sys.argv[1:],
            config_hash=config_hash(self._config),
        )
        tracker = self._config.tracker
        self._tracker.start(
            RunFacts(
                name=self.run.name,
                project=tracker.project,
                entity=tracker.entity,
                tags=tuple(tracker.tags),
                config=to_plain(self._config),
            )
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = "completed" if self._facts["status"] == "running" else self._facts["status"]
        if error is not None:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            self._facts["error"] = redact(
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
        try:
            self.note(status=status, seconds=round(time.time() - self._started, 1))
        finally:  # a full disk must not leave the tracker's process behind
            self._tracker.finish(status)
            self._metrics.close()
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()

    def note(self, **facts: Any) -> None:
        """Add facts to run.json."""
        self._facts |= facts
        text = json.dumps(redact_json(self._facts), indent=2, ensure_ascii=True, default=str)
        write_atomically(self.run.record, text + "\n")

    @property
    def derived(self) -> list[Derived]:
        """All derived values that were noted so far."""
        return self._derived

    def note_outcome(self, outcome: FitOutcome) -> None:
        """Keep how training ended."""
        self.note(training=asdict(outcome))

    def note_derived(self, derived: Sequence[Derived]) -> None:
        """Keep why derived values came out as they did."""
        self._derived.extend(derived)
        self.note(derived=[asdict(value) for value in self._derived])

    def record(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log a point: to metrics.jsonl, the tracker and the console."""
        self._metrics.log(step, values, epoch)
        self._tracker.log(step, values)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("step %d: %s", step, shown)

    def show_predictions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send a table of predictions to the tracker."""
        columns = ("id", "input", "reference", "prediction")
        limit = self._config.tracker.num_examples
        table = [[str(row[column]) for column in columns] for row in rows[:limit]]
        self._tracker.table("predictions", columns, table)


class SilentSession(Session):
    """The session of every process but the first: it writes and says nothing."""

    def __init__(self, run: RunDir, config: TrainConfig) -> None:
        self.run = run
        self._derived = []

    def __enter__(self) -> Self:
        logging.getLogger("exp").setLevel(logging.ERROR)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, **facts: Any) -> None:
        pass

    def record(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        pass

    def show_predictions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass


def _git_commit() -> str | None:
    """The commit of the folder that the command runs in, with "+changes" if it differs."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes.strip() else commit
