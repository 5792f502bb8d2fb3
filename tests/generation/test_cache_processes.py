import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from exp.generation.cache.key import KeyContext, Request
from exp.generation.cache.maintenance import verify
from exp.generation.cache.store import PredictionCache
from exp.records import Prediction

HERE = Path(__file__).parent


def context():
    return KeyContext(**{field.name: "" for field in fields(KeyContext)})


def request(number):
    return Request(str(number), (number,) * (2000 if number % 50 == 0 else 30))


def prediction(number):
    return Prediction(str(number), f"text {number} " * (1 + number % 90), "stop", 1, (number,))


def is_right(hit):
    expected = prediction(int(hit.id))
    return (hit.text, hit.token_ids) == (expected.text, expected.token_ids)


def work(seed, num_keys, num_passes):
    """Read and write all keys in a random order, as one of many evaluations; exit 3 if misled."""
    choose = random.Random(seed)
    with PredictionCache.open() as cache:
        print("open", flush=True)
        for _ in range(num_passes):
            numbers = choose.sample(range(num_keys), num_keys)
            while numbers:
                batch = [numbers.pop() for _ in range(min(len(numbers), choose.randint(1, 24)))]
                found = cache.lookup(context(), [request(n) for n in batch])
                if found.num_damaged or not all(map(is_right, found.hits.values())):
                    os._exit(3)
                cache.store(context(), [(request(n), prediction(n)) for n in batch])
        if cache.num_not_stored:
            os._exit(4)


def start(num_keys, num_passes, seed):
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        f"from test_cache_processes import work; work({seed}, {num_keys}, {num_passes})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def under_fire(num_processes, num_keys, num_passes, num_kills, limit_seconds):
    """Keep processes at work, kill one at a random moment again and again, then let all finish."""
    choose = random.Random(0)
    deadline = time.monotonic() + limit_seconds
    workers = [start(num_keys, num_passes, seed) for seed in range(num_processes)]
    try:
        kills = 0
        while kills < num_kills:
            victim = choose.randrange(num_processes)
            worker = workers[victim]
            worker.stdout.readline()
            time.sleep(choose.uniform(0, 0.1))
            worker.send_signal(signal.SIGKILL)
            worker.stdout.close()
            if worker.wait() == -signal.SIGKILL:
                kills += 1
            else:
                assert worker.returncode == 0
            workers[victim] = start(num_keys, num_passes, 100 + kills)
        codes = [worker.wait(max(1, deadline - time.monotonic())) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
    assert codes == [0] * num_processes
    with PredictionCache.open() as cache:
        found = cache.lookup(context(), [request(n) for n in range(num_keys)])
        assert found.num_hits == num_keys
        assert all(map(is_right, found.hits.values()))
        path = cache._database.path
    assert verify(path).problems == {}
    assert verify(path).count == num_keys
    assert not list(path.parent.glob("*.damaged-*"))


@pytest.mark.thorough
def test_killed_writers_leave_no_wrong_prediction_and_block_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    under_fire(num_processes=3, num_keys=120, num_passes=8, num_kills=6, limit_seconds=60)


@pytest.mark.slow
def test_eight_processes_killed_fifty_times_stay_right(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    under_fire(num_processes=8, num_keys=1000, num_passes=6, num_kills=50, limit_seconds=300)


@pytest.mark.thorough
def test_processes_that_start_at_once_share_one_new_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    (tmp_path / "predictions.sqlite").write_bytes(b"damaged")
    workers = [start(num_keys=20, num_passes=1, seed=seed) for seed in range(4)]
    for worker in workers:
        with worker:
            assert worker.wait(60) == 0
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    assert verify(tmp_path / "predictions.sqlite").count == 20
