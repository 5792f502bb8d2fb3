import random
import shutil
import sqlite3
import time
from dataclasses import fields

import pytest

from exp.generation.cache import database, store
from exp.generation.cache.database import CacheError
from exp.generation.cache.key import KeyContext, Request
from exp.generation.cache.maintenance import verify
from exp.generation.cache.store import PredictionCache
from exp.records import Prediction

NUMBERS = range(160)
ADAPTERS = ("one", "two")


def context(adapter):
    return KeyContext(**{**{field.name: "" for field in fields(KeyContext)}, "adapter": adapter})


def request(number):
    # Some rows are longer than a page, so that overflow pages are damaged too.
    return Request(str(number), (7,) * (3000 if number % 40 == 0 else 20) + (number,))


def prediction(adapter, number):
    return Prediction(str(number), f"{adapter} says {number}", "stop", 1, (number,))


def fill(cache):
    for adapter in ADAPTERS:
        for start in range(0, len(NUMBERS), 16):
            numbers = NUMBERS[start : start + 16]
            cache.store(context(adapter), [(request(n), prediction(adapter, n)) for n in numbers])


def assert_never_wrong(cache):
    """Look everything up; every hit must be the very prediction. Return the number of hits."""
    total = 0
    for adapter in ADAPTERS:
        found = cache.lookup(context(adapter), [request(n) for n in NUMBERS])
        for id, hit in found.hits.items():
            expected = prediction(adapter, int(id))
            assert (hit.id, hit.text, hit.token_ids) == (id, expected.text, expected.token_ids)
        assert found.num_hits + found.num_misses + found.num_stale == len(NUMBERS)
        total += found.num_hits
    return total


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A closed cache, and one with its last writes in the log, as a killed writer leaves it."""
    folder = tmp_path_factory.mktemp("pristine")
    with PredictionCache.open(folder / "open" / "p.sqlite") as cache:
        fill(cache)
        shutil.copytree(folder / "open", folder / "killed", ignore=shutil.ignore_patterns("*-shm"))
    shutil.copytree(folder / "open", folder / "closed")
    assert (folder / "killed" / "p.sqlite-wal").stat().st_size > 0
    return folder


def flip_bits(data, choose):
    for _ in range(choose.choice((1, 1, 8, 64))):
        bit = choose.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8


def flip_in_header(data, choose):
    bit = choose.randrange(8 * min(len(data), 200))
    data[bit // 8] ^= 1 << bit % 8


def overwrite(data, choose):
    start = choose.randrange(len(data))
    size = choose.choice((1, 16, 512, 4096))
    data[start : start + size] = choose.randbytes(len(data[start : start + size]))


def truncate(data, choose):
    del data[choose.randrange(len(data)) :]


def empty(data, choose):
    del data[:]


def append(data, choose):
    data += choose.randbytes(choose.randrange(1, 10_000))


def copy_page(data, choose):
    pages = len(data) // 4096
    source, target = choose.randrange(pages), choose.randrange(pages)
    data[target * 4096 : (target + 1) * 4096] = data[source * 4096 : (source + 1) * 4096]


def zero_page(data, choose):
    page = choose.randrange(len(data) // 4096)
    data[page * 4096 : (page + 1) * 4096] = bytes(4096)


def replace_all(data, choose):
    data[:] = choose.choice((b"not a database", b"\0" * 4096, choose.randbytes(20_000)))


KINDS = (
    flip_bits,
    flip_in_header,
    overwrite,
    truncate,
    empty,
    append,
    copy_page,
    zero_page,
    replace_all,
)


def damage_and_use(pristine, folder, seed):
    """Damage one file at random and use the cache; return hits before and after refilling."""
    choose = random.Random(seed)
    state = choose.choice(("closed", "killed"))
    shutil.copytree(pristine / state, folder)
    names = ["p.sqlite"] if state == "closed" else ["p.sqlite", "p.sqlite-wal", "p.sqlite-wal"]
    file = folder / choose.choice(names)
    data = bytearray(file.read_bytes())
    choose.choice(KINDS)(data, choose)
    file.write_bytes(data)
    try:
        verify(folder / "p.sqlite")
        with PredictionCache.open(folder / "p.sqlite") as cache:
            before = assert_never_wrong(cache)
            # Damage that only writing meets takes what was written before into the file set aside.
            fill(cache)
            assert_never_wrong(cache)
            fill(cache)
            after = assert_never_wrong(cache)
            assert after == len(ADAPTERS) * len(NUMBERS) - cache.num_not_stored
    except CacheError:
        return None
    finally:
        shutil.rmtree(folder)
    return before, after


@pytest.mark.parametrize("seeds", [range(50)])
@pytest.mark.thorough
def test_random_damage_is_a_miss_or_a_clear_error(pristine, tmp_path, seeds):
    check_random_damage(pristine, tmp_path, seeds)


@pytest.mark.slow
def test_five_hundred_damages_are_misses_or_clear_errors(pristine, tmp_path):
    check_random_damage(pristine, tmp_path, range(1000, 1500))


def check_random_damage(pristine, tmp_path, seeds):
    outcomes = [damage_and_use(pristine, tmp_path / str(seed), seed) for seed in seeds]
    whole = len(ADAPTERS) * len(NUMBERS)
    # The test would prove nothing if the damage hit nothing, or if everything were thrown away.
    assert sum(outcome is None or outcome[0] < whole for outcome in outcomes) > len(seeds) / 4
    assert sum(outcome is not None and outcome[0] > 0 for outcome in outcomes) > len(seeds) / 10
    # After the damage the cache is usable again.
    assert (
        sum(outcome is not None and outcome[1] == whole for outcome in outcomes) > len(seeds) * 0.9
    )


def test_without_verification_random_damage_serves_wrong_predictions(
    pristine, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "is_intact", lambda *values: True)
    shutil.copytree(pristine / "closed", tmp_path / "copy")
    file = tmp_path / "copy" / "p.sqlite"
    file.write_bytes(file.read_bytes().replace(b"one says 5", b"one says 6"))
    with PredictionCache.open(file) as cache, pytest.raises(AssertionError):
        assert_never_wrong(cache)


def test_a_damaged_file_is_set_aside_whole_with_a_warning(pristine, tmp_path, caplog):
    file = tmp_path / "p.sqlite"
    file.write_bytes(b"not a database, but somebody's")
    with PredictionCache.open(file) as cache:
        fill(cache)
        assert assert_never_wrong(cache) == len(ADAPTERS) * len(NUMBERS)
    assert (tmp_path / "p.sqlite.damaged-1").read_bytes() == b"not a database, but somebody's"
    assert "p.sqlite.damaged-1" in caplog.text
    assert len(caplog.records) == 1


def test_another_programs_database_is_set_aside_unchanged(tmp_path):
    file = tmp_path / "p.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE prediction (mine)")
    connection.close()
    before = file.read_bytes()
    PredictionCache.open(file).close()
    assert (tmp_path / "p.sqlite.damaged-1").read_bytes() == before


def test_several_damaged_files_are_set_aside_side_by_side(tmp_path):
    for content in (b"first" * 100, b"second" * 100):
        (tmp_path / "p.sqlite").write_bytes(content)
        PredictionCache.open(tmp_path / "p.sqlite").close()
    aside = {path.read_bytes() for path in tmp_path.glob("*.damaged-*")}
    assert aside == {b"first" * 100, b"second" * 100}


def test_a_header_that_forbids_writing_is_damage(pristine, tmp_path):
    shutil.copytree(pristine / "closed", tmp_path / "copy")
    file = tmp_path / "copy" / "p.sqlite"
    data = bytearray(file.read_bytes())
    # Byte 18 is the version that a writer must know; SQLite opens what it does not know read-only.
    data[18] = 3
    file.write_bytes(data)
    with PredictionCache.open(file) as cache:
        fill(cache)
        assert assert_never_wrong(cache) == len(ADAPTERS) * len(NUMBERS)
    assert (tmp_path / "copy" / "p.sqlite.damaged-1").read_bytes() == data


def test_an_empty_file_is_a_new_cache(tmp_path):
    (tmp_path / "p.sqlite").touch()
    PredictionCache.open(tmp_path / "p.sqlite").close()
    assert not list(tmp_path.glob("*.damaged-*"))


def test_damage_found_in_use_is_set_aside_once_by_all_who_use_it(pristine, tmp_path, caplog):
    shutil.copytree(pristine / "closed", tmp_path / "copy")
    file = tmp_path / "copy" / "p.sqlite"
    with PredictionCache.open(file) as first, PredictionCache.open(file) as second:
        data = bytearray(file.read_bytes())
        data[8192:] = b"\xff" * (len(data) - 8192)
        file.write_bytes(data)
        assert assert_never_wrong(first) == 0
        fill(first)
        assert_never_wrong(second)
        fill(second)
        assert assert_never_wrong(second) == len(ADAPTERS) * len(NUMBERS)
        assert assert_never_wrong(first) == len(ADAPTERS) * len(NUMBERS)
    assert sum("renamed" in record.message for record in caplog.records) == 1
    with PredictionCache.open(file) as cache:
        assert assert_never_wrong(cache) == len(ADAPTERS) * len(NUMBERS)


def test_a_file_that_another_process_blocks_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    PredictionCache.open(tmp_path / "p.sqlite").close()
    blocker = sqlite3.connect(tmp_path / "p.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    with pytest.raises(CacheError, match="locked"):
        PredictionCache.open(tmp_path / "p.sqlite")
    assert time.monotonic() - start < 5
    blocker.close()
    PredictionCache.open(tmp_path / "p.sqlite").close()
    assert not list(tmp_path.glob("*.damaged-*"))
