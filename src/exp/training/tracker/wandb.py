"""Points and tables to Weights & Biases, from a process of its own.

The client starts a service, installs exit hooks and may retry for minutes; in a process of its own
all of that can be ended at any moment, and the command line of the run is not in its sight. The two
speak JSON lines: calls go to standard input of `wandb_process`, its answers come back.
"""

import json
import logging
import netrc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from exp.redaction import redact
from exp.training.tracker.base import RunFacts

log = logging.getLogger(__name__)


class WandbTracker:
    """Mirrors a run to W&B: online if the user is logged in, offline files otherwise.

    A server that cannot be reached is one warning, and the run is kept offline, to be sent later
    by `wandb sync`. WANDB_MODE and the client's other variables are respected.

    Args:
        directory: Where the client's files go.
        timeout_seconds: How long to wait for the server at the start.
    """

    def __init__(self, directory: Path, timeout_seconds: float) -> None:
        self.directory = directory
        self.timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[str] | None = None
        self._aborted = False

    def start(self, facts: RunFacts) -> None:
        mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        try:
            self._start(facts, mode)
        except ConnectionError as error:
            if mode != "online" or self._aborted:
                raise
            log.warning(
                "W&B cannot be reached (%s); the run is kept offline. Send it later with "
                "`wandb sync %s`.",
                redact(str(error)).splitlines()[0],
                self.directory / "wandb" / "offline-run-*",
            )
            _kill(self._running())
            self._start(facts, "offline")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._send({"call": "log", "step": step, "values": values})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._send({"call": "table", "name": name, "columns": columns, "rows": rows})

    def finish(self, status: str) -> None:
        self._send({"call": "finish", "exit_code": int(status != "completed")})
        self._expect("finished")
        process = self._running()
        process.wait()
        _close(process)

    def abort(self) -> None:
        self._aborted = True
        if self._process:
            _kill(self._process)

    def _start(self, facts: RunFacts, mode: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        files = {
            name: str(self.directory / "wandb" / folder)
            for name, folder in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data"))
        }
        process = subprocess.Popen(
            # -P: a folder called wandb where the user stands must not be taken for the package.
            [sys.executable, "-P", "-m", "exp.training.tracker.wandb_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            # Ctrl-C is for the run, which then tells its tracker; and a group can be ended whole.
            start_new_session=True,
            env={**files, **os.environ, "WANDB_ERROR_REPORTING": "false"},
        )
        self._process = process
        if self._aborted:
            _kill(process)
        self._send(
            {
                "call": "start",
                "mode": mode,
                "name": facts.name,
                "project": facts.project,
                "entity": facts.entity,
                "tags": facts.tags,
                "config": facts.config,
                "directory": str(self.directory),
                "timeout_seconds": self.timeout_seconds,
                "pid": os.getpid(),
            }
        )
        self._expect("started")

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise ConnectionError("it was not started")
        return self._process

    def _send(self, message: Mapping[str, Any]) -> None:
        pipe = self._running().stdin
        assert pipe is not None
        try:
            # ASCII, so that text that UTF-8 cannot hold (a lone surrogate) gets through as well.
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except OSError:
            self._expect("nothing more")

    def _expect(self, answer: str) -> None:
        """Read one answer; raise what the process says went wrong, or that it has gone."""
        pipe = self._running().stdout
        assert pipe is not None
        line = pipe.readline()
        message = json.loads(line) if line else {"error": "its process has ended"}
        if message.get("answer") != answer:
            raise ConnectionError(message.get("error", f"unexpected answer {message}"))


def _kill(process: "subprocess.Popen[str]") -> None:
    # The client's service watches for the end of its client and ends with it.
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _close(process)


def _close(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()


def logged_in() -> bool:
    """Whether a key for the server is in WANDB_API_KEY or, by `wandb login`, in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(server).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
