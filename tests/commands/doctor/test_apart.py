"""Functions of the standard library are called: the other process cannot import this file."""

import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exp.commands.doctor.apart import Workbench
from exp.rundir import open_run_dir

SECONDS = 300
HANGS = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench()


def test_a_value_comes_back(bench: Workbench) -> None:
    ended = bench.run(SECONDS, operator.add, 2, 3)
    assert (ended.value, ended.failure) == (5, None)
    assert ended.seconds > 0


def test_a_user_error_comes_back_with_its_fix(bench: Workbench) -> None:
    ended = bench.run(SECONDS, open_run_dir, "/nowhere")
    assert (ended.failure or "").startswith("/nowhere is not a run folder")
    assert "run=outputs" in (ended.fix or "")


def test_an_exception_comes_back_as_its_first_line(bench: Workbench) -> None:
    ended = bench.run(SECONDS, int, "x\ny")
    assert (ended.failure or "").startswith("ValueError: invalid literal")


def test_a_crash_is_told_by_its_signal(bench: Workbench) -> None:
    ended = bench.run(SECONDS, signal.raise_signal, signal.SIGKILL)
    assert ended.failure == "its process was killed by SIGKILL"


@pytest.mark.thorough
def test_an_early_exit_is_told_by_its_code(bench: Workbench) -> None:
    assert bench.run(SECONDS, os._exit, 3).failure == "its process ended with exit code 3"


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().split()[2] == "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs a /proc")
@pytest.mark.thorough
def test_what_hangs_is_ended_with_all_that_it_started(bench: Workbench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    bench.run(SECONDS, operator.add, 1, 1)
    for limit in (2, 20, 200):  # the later ones on a machine that has other things to do
        ended = bench.run(limit, subprocess.run, [sys.executable, "-S", "-c", HANGS, str(file)])
        assert ended.failure == f"no answer within {limit} s"
        if file.exists() and file.read_text():
            break
    deadline = time.monotonic() + 30
    while not gone(int(file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(int(file.read_text()))


@pytest.mark.thorough
def test_what_another_thread_runs_is_ended_when_all_is_stopped() -> None:
    bench = Workbench()
    bench.run(SECONDS, operator.add, 1, 1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.run, SECONDS, time.sleep, SECONDS)
        time.sleep(0.5)
        started = time.monotonic()
        bench.stop()
        assert running.result().failure is not None
    assert time.monotonic() - started < SECONDS / 2
    assert bench.run(SECONDS, operator.add, 1, 1).failure == "it was stopped"


@pytest.mark.thorough
def test_folder_and_environment_are_those_of_now(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXP_DOCTOR_TEST", "now")
    assert bench.run(SECONDS, os.getcwd).value == str(tmp_path)
    assert bench.run(SECONDS, os.getenv, "EXP_DOCTOR_TEST").value == "now"


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.thorough
def test_what_is_printed_apart_is_not_seen(
    bench: Workbench, capfd: pytest.CaptureFixture[str], stream: int
) -> None:
    assert bench.run(SECONDS, os.write, stream, b"from the depths").failure is None
    assert "depths" not in "".join(capfd.readouterr())
