"""The process that runs the W&B client; started by `wandb`, ends with its standard input."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any, TextIO

# How long the client may take to close a run whose own process is gone without a word.
ORPHAN_SECONDS = 30


def main() -> None:
    # The client prints to standard output and hands its streams on to its service. Calls and
    # answers move to descriptors that no child inherits.
    calls = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        serve(calls, answers)
    except BaseException as error:
        answer(answers, error=f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def serve(calls: TextIO, answers: TextIO) -> None:
    """Carry out one call per line until `finish`, or until the run's process has gone."""
    run: Any = None
    for line in calls:
        message = json.loads(line)
        match message["call"]:
            case "start":
                run = start(message)
                answer(answers, answer="started")
            case "log":
                run.log({**message["values"], "step": message["step"]})
            case "table":
                import wandb

                # The media columns of a table guess types per cell; all of ours are text.
                table = wandb.Table(columns=message["columns"], data=message["rows"])
                run.log({message["name"]: table})
            case "finish":
                run.finish(exit_code=message["exit_code"])
                answer(answers, answer="finished")
                return
    if run is not None:
        end = threading.Timer(ORPHAN_SECONDS, os.killpg, (os.getpgrp(), signal.SIGKILL))
        end.daemon = True
        end.start()
        run.finish(exit_code=1)


def start(facts: dict[str, Any]) -> Any:
    """Begin the run, with everything off that would look at code, git, command line or host."""
    import wandb

    run = wandb.init(
        project=facts["project"],
        entity=facts["entity"],
        name=facts["name"],
        tags=facts["tags"],
        config=facts["config"],
        dir=facts["directory"],
        mode=facts["mode"],
        settings=wandb.Settings(
            # Half of it, so that an unreachable server leaves time to begin again offline.
            init_timeout=facts["timeout_seconds"] / 2,
            finish_timeout=facts["timeout_seconds"] * 0.8,
            finish_timeout_raises=True,
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            # System curves (GPU, memory) are those of the run, not of this process.
            x_stats_pid=facts["pid"],
        ),
    )
    # Points are placed by our own step, as the client drops those that come out of order.
    run.define_metric("*", step_metric="step")
    return run


def answer(answers: TextIO, **message: str) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
