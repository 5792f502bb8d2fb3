"""Run the trials of the ablation that are not done yet, one after the other, on one thread.

Start it once per core; workers on the same folder share the trials out:

    for core in 0 1; do
        taskset -c $core python benchmarks/ablation/run.py --viggo <folder> &
    done

Stop it with Ctrl-C or SIGTERM, and go on by starting it again. A trial that was cut off starts
anew, in a folder of its own; nothing is written over.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from trials import Trial, all_trials, finished_run

from exp.commands.sweep import last_line

CHECKOUT = Path(__file__).parents[2]
SPLITS = ("train", "validation", "test")


def main() -> int:
    """Work until no trial is left; 1 if one failed, or is left to another worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--viggo", type=Path, help="folder with train.jsonl, validation.jsonl, test.jsonl"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/ablation"), help="for runs")
    options = parser.parse_args()
    if options.viggo is not None:
        missing = [s for s in SPLITS if not (options.viggo / f"{s}.jsonl").is_file()]
        if missing:
            parser.error(f"{options.viggo} lacks {', '.join(f'{s}.jsonl' for s in missing)}")
    wanted = [t for t in all_trials() if options.viggo is not None or t.data.name != "viggo"]
    if options.viggo is None:
        print("without --viggo: the trials on ViGGO are left out", flush=True)
    # SIGTERM is to end the trial too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = options.folder.resolve()
    try:
        return work(wanted, folder, str((options.viggo or Path()).resolve()))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def work(trials: Iterable[Trial], folder: Path, viggo: str) -> int:
    """Run every trial that is neither done nor another worker's; 1 if not all are done then."""
    trials = list(trials)
    for trial in trials:
        place = folder / trial.folder
        place.mkdir(parents=True, exist_ok=True)
        try:
            # The system lets go of it when the worker dies, however it does.
            with FileLock(place / "lock", timeout=0):
                if finished_run(place) is None:
                    run_trial(trial, place, viggo)
        except Timeout:
            print(f"{trial.folder}: another worker has it", flush=True)
    done = sum(finished_run(folder / trial.folder) is not None for trial in trials)
    print(f"{done} of {len(trials)} trials are done", flush=True)
    return 0 if done == len(trials) else 1


def run_trial(trial: Trial, place: Path, viggo: str) -> None:
    """Train and score once, with the console in a file."""
    print(f"{trial.folder}: started", flush=True)
    start = time.monotonic()
    code = run_process(command(trial, place, viggo), place / "console.log")
    seconds = time.monotonic() - start
    ended = "done" if code == 0 else f"FAILED ({code}): {last_line(place / 'console.log')}"
    print(f"{trial.folder}: {ended}, {seconds:.0f} s", flush=True)


def command(trial: Trial, place: Path, viggo: str) -> list[str]:
    """Return the command of one trial, whose runs are made in `place`."""
    words = (*trial.arguments(viggo), f"output_dir={place}")
    return [sys.executable, "-m", "exp", "train", *words]


def run_process(words: Sequence[str], console: Path) -> int:
    """Run a process to its end; where this one is told to stop, so is that one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        console.open("ab") as file,
        subprocess.Popen(
            words,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()  # it ends behind a whole step
            raise


if __name__ == "__main__":
    sys.exit(main())
