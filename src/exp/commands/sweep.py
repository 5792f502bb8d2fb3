"""A sweep: trials chosen by Hydra's sweeper, each run in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from exp.commands.leaderboard import print_leaderboard, shown, write_leaderboard
from exp.commands.study import OK, Study, Trial
from exp.config.groups import Library
from exp.config.launch import sweep
from exp.config.plain import read_config
from exp.config.preflight import Checked
from exp.config.quoting import quoted
from exp.errors import ConfigError, UserError
from exp.records import Score
from exp.rundir import RunDir, create_run_dir

# Longer names meet the limit of file systems once a run folder adds its own.
MAX_NAME_CHARACTERS = 80


def run_study(verb: str, flags: Sequence[str], checked: Checked, library: Library) -> int:
    """Run every trial that Hydra's sweeper asks for, then show how they compare.

    Returns:
        0 if every trial ended well, else 1.

    Raises:
        ConfigError: The verb has no score to compare.
    """
    if verb != "train":
        raise ConfigError(
            f"exp {verb} has no sweep: --multirun compares trained runs.",
            where="command line, --multirun",
            fix="exp train --multirun ..., or run=[<folder>,<folder>] to evaluate several runs",
        )
    parent, arguments = _parent(checked)
    folder = create_run_dir(parent, None).path
    num_trials = len(checked.trials) or None
    study = Study(folder, verb, _child_flags(library), num_trials, frozenset(arguments))
    trials = f"{num_trials} trials" if num_trials else "trials"
    print(f"study {shown(folder)}: {trials}, one after the other", flush=True)
    interrupted = False
    try:
        sweep(
            verb,
            library,
            flags,
            [*arguments, f"hydra.sweep.dir={quoted(str(folder))}"],
            lambda number, overrides: run_trial(study, number, overrides),
        )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        finished = study.trials()
        if finished:
            write_leaderboard(folder, finished)
            print_leaderboard(folder, finished)
    if interrupted:
        raise KeyboardInterrupt
    return 0 if finished and all(trial.status == OK for trial in finished) else 1


def run_trial(study: Study, number: int, overrides: Sequence[str]) -> float:
    """Run one trial in a process of its own; NaN where it gave no score.

    A failed trial is recorded and not raised, so that the others still run.
    """
    varied = [word for word in overrides if word not in study.shared]
    name = trial_name(number, varied)
    console = study.path / f"{name}.console.log"
    command = [
        *(sys.executable, "-m", "exp", study.verb, *study.flags, *overrides),
        *(f"output_dir={quoted(str(study.path))}", f"name={name}"),
    ]
    known = study.num_trials is not None and number < study.num_trials
    of = f"/{study.num_trials}" if known else ""
    print(f"trial {number + 1}{of}  {' '.join(varied)}", flush=True)
    start = time.monotonic()
    status = _run(command, console)
    seconds = time.monotonic() - start
    run = _run_folder(study.path, name)
    run.path.mkdir(parents=True, exist_ok=True)
    log = console.rename(run.path / "console.log")
    split, score = read_score(run) if status == OK else (None, None)
    trial = Trial(name, tuple(overrides), status, seconds, str(run.path), str(log), split, score)
    study.add(trial)
    if status != OK:
        print(f"  {status}: {last_line(log)}\n  console: {shown(log)}", flush=True)
    elif score is not None:
        print(f"  {split} {score.name} {score.value:.4f} in {seconds:.0f} s", flush=True)
    else:
        print(f"  ok, without a score, in {seconds:.0f} s", flush=True)
    return score.value if score is not None else float("nan")


def _run(command: Sequence[str], console: Path) -> str:
    """Run a process with its console in a file; how it ended, in words."""
    with console.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The terminal sent the signal to the trial too; it may still be writing its state.
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            raise
        finally:
            process.kill()  # has no effect where it has ended
            process.wait()
    if code == 0:
        return OK
    if code < 0:
        return f"killed ({signal.Signals(-code).name})"
    return f"failed (exit {code})"


def read_score(run: RunDir) -> tuple[str | None, Score | None]:
    """The monitored score of a finished run: of validation if it is there, else of test.

    Trials are chosen by this number, and what is chosen on test is no longer a test.
    """
    try:
        monitor = read_config(run.config).task.monitor
        scores = json.loads(run.scores.read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        return None, None
    for split in ("validation", "test"):
        entry = _below(scores, split, "after", monitor)
        value = _below(entry, "value")
        if isinstance(value, int | float):
            low, high, count = (_below(entry, key) for key in ("low", "high", "count"))
            return split, Score(monitor, float(value), int(count or 0), low, high)
    return None, None


def trial_name(number: int, overrides: Sequence[str]) -> str:
    """A folder name from a trial's number and overrides, safe in paths and in overrides."""
    words = re.sub(r"[^A-Za-z0-9._]+", "-", " ".join(overrides)).strip("-.")
    return f"{number:03d}-{words}"[:MAX_NAME_CHARACTERS].rstrip("-.")


def last_line(log: Path) -> str:
    """The last line of a console that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _parent(checked: Checked) -> tuple[Path, list[str]]:
    """Where the study goes, and the arguments without the one that said so."""
    tasks = {trial.config.task.name for trial in checked.trials}
    given = [a for a in checked.arguments if a.partition("=")[0] == "output_dir"]
    base = checked.trials[0].config.output_dir if given and checked.trials else "multirun"
    task = tasks.pop() if len(tasks) == 1 else "several_tasks"
    return Path(base).resolve() / task, [a for a in checked.arguments if a not in given]


def _child_flags(library: Library) -> tuple[str, ...]:
    return ("--config-dir", os.fspath(library.extra)) if library.extra else ()


def _run_folder(study: Path, name: str) -> RunDir:
    """The run folder that a trial made; its place in the study if it made none."""
    made = [study / name, *study.glob(f"*/{name}")]
    return RunDir(next((path for path in made if (path / "config.yaml").is_file()), made[0]))


def _below(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
