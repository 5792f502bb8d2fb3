import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from exp.config.schema import TrackerConfig, TrackerKind
from exp.training.metrics_log import MetricsLog, read_metrics
from exp.training.tracker.base import RunFacts
from exp.training.tracker.open import open_tracker
from exp.training.tracker.wandb import logged_in

KEY = "canary0123456789abcdef0123456789abcdef01"


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def mirror(directory: Path, timeout_seconds: float, num_points: int = 30) -> float:
    """Mirror a short run; return how long the run was kept from ending, in seconds."""
    settings = TrackerConfig(kind=TrackerKind.wandb, timeout_seconds=timeout_seconds)
    tracker = open_tracker(settings, directory / "tracker")
    config = {"lora": {"init": "unique-setting"}, "secret": "canary-config"}
    facts = RunFacts("unique-name", "exp", None, ("unique-tag",), config)
    tracker.start(facts)
    with MetricsLog(directory / "metrics.jsonl") as metrics:
        for step in range(num_points):
            metrics.log(step, {"train/loss": 1 / (step + 1)})
            tracker.log(step, {"train/loss": 1 / (step + 1), "val/field_f1": float("nan")})
    tracker.table("predictions", ["input", "prediction"], [["a\ud800", "<script>unique-row"]])
    start = time.perf_counter()
    tracker.finish("completed")
    return time.perf_counter() - start


def written(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def processes_below(directory: Path) -> list[str]:
    """Command lines of running processes whose environment or files lie in `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return [line for line in found if "wandb" in line]


@pytest.mark.thorough
def test_who_is_not_logged_in_gets_offline_files_without_a_secret_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_SECRET", "canary-environment")
    monkeypatch.setattr(sys, "argv", ["exp", "train", "canary-argv"])
    mirror(tmp_path, timeout_seconds=60)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert len(list(tmp_path.glob("tracker/wandb/offline-run-*"))) == 1
    content = written(tmp_path / "tracker")
    for shown in ("name", "tag", "setting", "row"):
        assert f"unique-{shown}".encode() in content
    assert b"train/loss" in content
    assert b"canary" not in content


class Failing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(500)

    do_GET = do_POST

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def server(kind: str) -> Iterator[str]:
    """The address of a W&B server that is not there, never answers, or answers 500."""
    if kind == "failing":
        with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as failing:
            threading.Thread(target=failing.serve_forever).start()
            yield f"http://127.0.0.1:{failing.server_port}"
            failing.shutdown()
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        yield "http://127.0.0.1:9"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["absent", "silent", "failing"])
def test_a_server_out_of_order_costs_little_and_leaves_offline_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password canary-netrc\n")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with server(kind) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        check_that_the_run_goes_on_offline(tmp_path, caplog)


def check_that_the_run_goes_on_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    waited = mirror(tmp_path, timeout_seconds=10)
    assert waited < 10.5
    assert "cannot be reached" in caplog.text
    assert len(list(tmp_path.glob("tracker/wandb/offline-run-*"))) == 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 30
    assert b"canary" not in written(tmp_path / "tracker") + caplog.text.encode()


@pytest.mark.slow
def test_a_client_that_takes_too_long_is_ended_with_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert mirror(tmp_path, timeout_seconds=0.7) < 3
    assert "did not finish within 0.7 s" in caplog.text
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 30
    deadline = time.monotonic() + 15
    while processes_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_below(tmp_path) == []


@pytest.mark.slow
def test_a_tracker_process_that_is_killed_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrackerConfig(kind=TrackerKind.wandb, timeout_seconds=10)
    tracker = open_tracker(config, tmp_path / "tracker")
    tracker.start(RunFacts("a run", "exp", None, (), {}))
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("tracker/wandb/offline-run-*/*.wandb")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process = tracker._tracker._process  # type: ignore[attr-defined]
    process.kill()
    process.wait()
    for step in range(100):
        tracker.log(step, {"x": 1.0})
    tracker.finish("completed")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.slow
def test_a_run_that_dies_without_a_word_leaves_no_process_behind(tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from exp.config.schema import TrackerConfig, TrackerKind
from exp.training.tracker.base import RunFacts
from exp.training.tracker.open import open_tracker
tracker = open_tracker(TrackerConfig(kind=TrackerKind.wandb), Path({str(tmp_path)!r}))
tracker.start(RunFacts("a run", "exp", None, (), {{}}))
while not list(Path({str(tmp_path)!r}).glob("wandb/offline-run-*/*.wandb")):
    time.sleep(0.1)
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
    deadline = time.monotonic() + 20
    while processes_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_below(tmp_path) == []


def test_a_key_in_the_environment_or_in_netrc_counts_as_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert logged_in()
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text(f"machine other.host login user password {KEY}\n")
    assert not logged_in()
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert logged_in()
