"""Run a function in a process of its own, which may crash or hang without harm.

The processes are forked from a server that has imported the libraries once, so that each starts in
milliseconds and none inherits a CUDA context.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from exp.errors import UserError

# How long an ended process may take to be gone.
GRACE_SECONDS = 5
STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class Ended:
    """How a function ended: with a value, or with the reason why there is none."""

    value: Any = None
    failure: str | None = None
    fix: str | None = None
    seconds: float = 0.0


class Workbench:
    """Where functions are run apart.

    Args:
        preload: Modules that the server imports before it forks.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        method = (
            "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        )
        self._running: set[Any] = set()
        self._stopped = False
        self._context: BaseContext = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(list(preload))
            with _without_error_output():
                # It imports while the caller does other things.
                forkserver.ensure_running()

    def run(self, limit_seconds: float, function: Callable[..., Any], *arguments: Any) -> Ended:
        """Call a function of a module apart, and end it once its time is up."""
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_work, args=(writer, dict(os.environ), str(Path.cwd()), function, arguments)
        )
        started = time.perf_counter()
        try:
            self._running.add(process)
            process.start()
            writer.close()
            if self._stopped:
                return Ended(failure="it was stopped")
            ended = _await(reader, process, limit_seconds)
        finally:
            self._running.discard(process)
            _end(process)
            reader.close()
        seconds = time.perf_counter() - started
        return Ended(ended.value, ended.failure, ended.fix, seconds)

    def stop(self) -> None:
        """End what other threads run here, and start nothing any more."""
        self._stopped = True
        for process in tuple(self._running):
            _end(process)


@contextlib.contextmanager
def _without_error_output() -> Iterator[None]:
    """Let what is started within inherit a standard error that nobody reads.

    Libraries have things to say while they are imported, and the tracker of semaphores about
    processes that were killed.
    """
    kept = os.dup(STDERR)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def _await(reader: Connection, process: Any, limit_seconds: float) -> Ended:
    if not reader.poll(limit_seconds):
        return Ended(failure=f"no answer within {limit_seconds:g} s")
    try:
        answer: Ended = reader.recv()
    except EOFError:
        process.join(GRACE_SECONDS)
        return Ended(failure=f"its process {_cause_of_death(process.exitcode)}")
    return answer


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _end(process: Any) -> None:
    """End the process and all that it started."""
    if process.pid is None:
        return
    if hasattr(os, "killpg"):
        # The group is not there yet while the process has only just begun.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(GRACE_SECONDS)


def _work(
    writer: Connection,
    environment: dict[str, str],
    folder: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Do the work, and print nothing."""
    if hasattr(os, "setsid"):
        os.setsid()
    # The server may have been started in another folder, with another environment.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), STDOUT)
        os.dup2(nothing.fileno(), STDERR)
    try:
        writer.send(Ended(function(*arguments)))
    except UserError as error:
        writer.send(Ended(failure=str(error).splitlines()[0], fix=error.fix))
    # Whatever is wrong with a part is what the doctor is there to tell.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        writer.send(Ended(failure=f"{type(error).__name__}: {lines[0]}".rstrip(": ")))
