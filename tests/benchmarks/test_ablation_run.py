"""A worker runs what is left, and leaves alone what is done or another's."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import run
from filelock import FileLock
from trials import ALL, ARMS, DATA_SETS, Trial

FIRST, SECOND = (Trial(DATA_SETS[0], arm, 0) for arm in ARMS[:2])
WRITE_RECORD = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1], "attempt")
folder.mkdir()
(folder / "run.json").write_text(json.dumps({"status": sys.argv[2]}))
print("trial says", sys.argv[2])
sys.exit(sys.argv[2] != "completed")
"""


def leave(place, status, name="attempt"):
    (place / name).mkdir(parents=True)
    (place / name / "run.json").write_text(json.dumps({"status": status}))


@pytest.fixture
def started(monkeypatch):
    """Trials end at once, and well unless their arm is "all"; return the ones that were started."""
    trials = []

    def command(trial, place, viggo):
        trials.append(trial)
        status = "failed" if trial.arm is ALL else "completed"
        return [sys.executable, "-c", WRITE_RECORD, str(place), status]

    monkeypatch.setattr(run, "command", command)
    return trials


def test_a_trial_that_is_done_is_not_run_again(tmp_path, started):
    leave(tmp_path / FIRST.folder, "completed")
    assert run.work([FIRST, SECOND], tmp_path, "") == 0
    assert started == [SECOND]


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_trial_that_was_cut_off_starts_anew_beside_what_it_left(tmp_path, started, status):
    leave(tmp_path / FIRST.folder, status, name="before")
    assert run.work([FIRST], tmp_path, "") == 0
    assert started == [FIRST]
    left = json.loads((tmp_path / FIRST.folder / "before" / "run.json").read_text())
    assert left == {"status": status}


def test_a_trial_of_another_worker_is_left_to_it(tmp_path, started):
    place = tmp_path / FIRST.folder
    place.mkdir(parents=True)
    with FileLock(place / "lock"):
        assert run.work([FIRST, SECOND], tmp_path, "") == 1
    assert started == [SECOND]


def test_a_failed_trial_is_told_and_the_others_still_run(tmp_path, started, capsys):
    failing = Trial(DATA_SETS[0], ALL, 0)
    assert run.work([failing, FIRST], tmp_path, "") == 1
    assert started == [failing, FIRST]
    printed = capsys.readouterr().out
    assert "all/seed0: FAILED (1): trial says failed" in printed
    assert "1 of 2 trials are done" in printed


def test_the_command_holds_the_trial_its_folder_and_one_thread(tmp_path):
    words = run.command(FIRST, tmp_path, "rows")
    assert words[1:4] == ["-m", "exp", "train"]
    assert set(FIRST.arguments("rows")) < set(words)
    assert {"hardware.cpu_threads=1", f"output_dir={tmp_path}"} < set(words)


def test_a_trial_ends_with_its_worker(tmp_path):
    pid_file = tmp_path / "pid"
    script = f"""
import pathlib, os, time
pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
time.sleep(60)
"""

    def interrupt():
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    # A process that a shell has put into the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run.run_process([sys.executable, "-c", script], tmp_path / "console.log")
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.thorough
def test_rows_that_are_not_there_are_told_before_anything_runs(tmp_path):
    (tmp_path / "train.jsonl").touch()
    done = subprocess.run(
        [sys.executable, run.__file__, "--viggo", str(tmp_path), "--folder", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "lacks validation.jsonl, test.jsonl" in done.stderr
    assert not (tmp_path / "out").exists()
