import os
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from exp.config.schema import CacheConfig
from exp.generation.cache import store
from exp.generation.cache.database import CacheError
from exp.generation.cache.key import KeyContext, Request
from exp.generation.cache.store import PredictionCache
from exp.records import Prediction

HERE = Path(__file__).parent


def context(**changes):
    return KeyContext(**{**{field.name: "" for field in fields(KeyContext)}, **changes})


def request(number):
    return Request(f"row-{number}", (1, number, 3))


def prediction(number, text=None):
    return Prediction(f"row-{number}", text or f"text {number}", "stop", 2, (number, 2))


def pairs(*numbers):
    return [(request(number), prediction(number)) for number in numbers]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "predictions.sqlite"


@pytest.fixture
def cache(path):
    with PredictionCache.open(path) as cache:
        yield cache


def test_what_was_stored_is_found_and_the_rest_is_missed(cache):
    cache.store(context(), pairs(1, 2))
    found = cache.lookup(context(), [request(n) for n in (1, 2, 3)])
    assert set(found.hits) == {"row-1", "row-2"}
    assert found.hits["row-2"] == Prediction("row-2", "text 2", "stop", 2, (2, 2), cached=True)
    assert (found.num_hits, found.num_misses, found.num_stale) == (2, 1, 0)
    assert str(found) == "2 hits, 1 misses, 0 stale"


@pytest.mark.parametrize("text", ["", "ñ\u2028\x00", "\ud800 lone", '{"a": "b"}', "😀" * 1000])
def test_any_text_comes_back_as_it_was(cache, text):
    cache.store(context(), [(request(1), Prediction("row-1", text, "length", 3))])
    hit = cache.lookup(context(), [request(1)]).hits["row-1"]
    assert (hit.text, hit.finish_reason, hit.num_tokens, hit.token_ids) == (text, "length", 3, ())


def test_rows_with_equal_prompts_share_a_prediction(cache):
    cache.store(context(), pairs(1))
    twins = [Request("x", (1, 1, 3)), Request("y", (1, 1, 3))]
    found = cache.lookup(context(), twins)
    assert {id: hit.text for id, hit in found.hits.items()} == {"x": "text 1", "y": "text 1"}
    assert [hit.id for hit in found.hits.values()] == ["x", "y"]


def test_more_rows_than_fit_one_query_are_found(cache):
    numbers = range(1, 1203)
    cache.store(context(), pairs(*numbers))
    found = cache.lookup(context(), [request(n) for n in numbers])
    assert [found.hits[f"row-{n}"].text for n in numbers] == [f"text {n}" for n in numbers]


def test_nothing_to_look_up_finds_nothing(cache):
    assert str(cache.lookup(context(), [])) == "0 hits, 0 misses, 0 stale"


def test_contexts_are_kept_apart(cache):
    for name in ("a", "b"):
        cache.store(context(adapter=name), [(request(1), prediction(1, f"of {name}"))])
    for name in ("a", "b"):
        assert cache.lookup(context(adapter=name), [request(1)]).hits["row-1"].text == f"of {name}"


def test_old_predictions_are_stale_and_renewed(path, monkeypatch):
    day_ns = 24 * 3600 * 10**9
    with PredictionCache.open(path, max_age_days=30) as cache:
        now = store.time.time_ns()
        monkeypatch.setattr(store.time, "time_ns", lambda: now - 31 * day_ns)
        cache.store(context(), pairs(1))
        monkeypatch.setattr(store.time, "time_ns", lambda: now - 29 * day_ns)
        cache.store(context(), pairs(2))
        found = cache.lookup(context(), [request(1), request(2)])
        assert (list(found.hits), found.num_misses, found.num_stale) == (["row-2"], 0, 1)
        cache.store(context(), pairs(1))
        assert cache.lookup(context(), [request(1), request(2)]).num_hits == 2


def test_forced_recomputation_finds_nothing_and_replaces(path):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1))
    with PredictionCache.open(path, force_recompute=True) as cache:
        assert cache.lookup(context(), [request(1)]).num_misses == 1
        cache.store(context(), [(request(1), prediction(1, "new"))])
    with PredictionCache.open(path) as cache:
        assert cache.lookup(context(), [request(1)]).hits["row-1"].text == "new"


def test_the_configuration_opens_the_cache_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert PredictionCache.from_config(CacheConfig(enabled=False)) is None
    assert not (tmp_path / "elsewhere").exists()
    with PredictionCache.from_config(CacheConfig()) as cache:
        cache.store(context(), pairs(1))
    assert (tmp_path / "elsewhere" / "predictions.sqlite").is_file()
    with PredictionCache.from_config(CacheConfig(max_age_days=0, force_recompute=True)) as cache:
        assert cache.lookup(context(), [request(1)]).num_misses == 1


READER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cache_store import context, request
from exp.generation.cache.store import PredictionCache
assert "torch" not in sys.modules
with PredictionCache.open() as cache:
    print(cache.lookup(context(), [request(n) for n in range(200)]).num_hits)
"""


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
@pytest.mark.thorough
def test_another_process_folder_and_hash_seed_hits_every_row(tmp_path, hash_seed, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "shared"))
    with PredictionCache.open() as cache:
        cache.store(context(), pairs(*range(200)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    printed = subprocess.run(
        [sys.executable, "-c", READER, HERE],
        cwd=elsewhere,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == "200\n"


KILLED_WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_cache_store import context, pairs
from exp.generation.cache.store import PredictionCache
cache = PredictionCache.open()
for number in range(50):
    cache.store(context(), pairs(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_interrupted_evaluation_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-c", KILLED_WRITER, HERE]
    assert subprocess.run(command).returncode == -9
    with PredictionCache.open() as cache:
        assert cache.lookup(context(), [request(n) for n in range(60)]).num_hits == 50


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be used") as caught:
        PredictionCache.open(tmp_path / "file" / "predictions.sqlite")
    assert "cache.enabled=false" in caught.value.fix


def test_a_path_that_is_a_folder_is_a_clear_error(path):
    path.mkdir()
    with pytest.raises(CacheError):
        PredictionCache.open(path)


def test_a_full_disk_is_told_and_counted_and_ends_nothing(path, caplog):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1))
        connection = cache._database.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        big = [(request(n), prediction(n, "x" * 5000)) for n in range(2, 12)]
        cache.store(context(), big)
        cache.store(context(), big)
        assert cache.num_not_stored == 20
        assert "full" in caplog.text
        assert len(caplog.records) == 2
        assert cache.lookup(context(), [request(1)]).num_hits == 1


def test_a_writer_waits_for_another_one_and_both_are_kept(path):
    with PredictionCache.open(path) as first, PredictionCache.open(path) as second:
        first.store(context(), pairs(1))
        second.store(context(), pairs(2))
        first.store(context(adapter="x"), pairs(3))
        assert second.lookup(context(adapter="x"), [request(3)]).num_hits == 1
        assert first.lookup(context(), [request(1), request(2)]).num_hits == 2


def test_a_reader_is_not_blocked_by_a_writer(path):
    with PredictionCache.open(path) as reader:
        reader.store(context(), pairs(1))
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert reader.lookup(context(), [request(1)]).num_hits == 1
        writer.close()


def alter(path, statement, *values):
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE prediction SET payload = CAST(replace(payload, 'text', 'tixt') AS BLOB)",
        "UPDATE prediction SET payload = NULL",
        "UPDATE prediction SET checksum = zeroblob(32)",
        "UPDATE prediction SET created_ms = created_ms + 1",
        "UPDATE prediction SET created_ms = 'x'",
        "UPDATE prediction SET request = zeroblob(21)",
        "UPDATE prediction SET context = zeroblob(32)",
    ],
)
def test_an_altered_row_is_a_counted_miss_until_it_is_stored_anew(path, caplog, statement):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1, 2))
    alter(path, statement)
    with PredictionCache.open(path) as cache:
        found = cache.lookup(context(), [request(1), request(2)])
        assert (found.num_hits, found.num_misses, found.num_damaged) == (0, 2, 2)
        assert "2 damaged" in str(found)
        assert "exp cache verify" in caplog.text
        cache.store(context(), pairs(1, 2))
        assert cache.lookup(context(), [request(1), request(2)]).num_hits == 2


def test_a_row_with_the_payload_and_checksum_of_another_is_a_miss(path):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1, 2))
    alter(
        path,
        "UPDATE prediction SET (payload, checksum, created_ms) = (SELECT payload, checksum, "
        "created_ms FROM prediction p WHERE p.key > prediction.key) "
        "WHERE key = (SELECT min(key) FROM prediction)",
    )
    with PredictionCache.open(path) as cache:
        found = cache.lookup(context(), [request(1), request(2)])
    assert (found.num_hits, found.num_damaged) == (1, 1)
    assert all(hit.text == id.replace("row-", "text ") for id, hit in found.hits.items())


def test_an_altered_context_is_a_miss_until_it_is_stored_anew(path):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1))
    alter(path, "UPDATE context SET preimage = CAST('{}' AS BLOB)")
    with PredictionCache.open(path) as cache:
        assert cache.lookup(context(), [request(1)]).num_misses == 1
        cache.store(context(), pairs(2))
        assert cache.lookup(context(), [request(1), request(2)]).num_hits == 2


def test_without_its_checksum_a_payload_in_the_wrong_row_would_be_served(path, monkeypatch):
    with PredictionCache.open(path) as cache:
        cache.store(context(), pairs(1, 2))
    alter(path, "UPDATE prediction SET payload = (SELECT max(payload) FROM prediction)")
    monkeypatch.setattr(store, "is_intact", lambda *values: True)
    with PredictionCache.open(path) as cache:
        assert cache.lookup(context(), [request(1)]).hits["row-1"].text == "text 2"


def test_a_cache_folder_that_cannot_be_made_is_no_reason_to_give_up(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(CacheError) as caught:
        PredictionCache.open()
    assert caught.value.fix.startswith("cache.enabled=false, or EXP_CACHE_DIR=")
