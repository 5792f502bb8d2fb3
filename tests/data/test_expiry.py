import os
import time

import pytest

from exp.data.expiry import KEPT_DAYS, mark_used, remove_unused
from exp.data.sources.unpack import cached_copy


def age(path, days):
    changed = path.stat().st_mtime_ns
    os.utime(path, ns=(time.time_ns() - int(days * 86_400e9), changed))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("x")
    return tmp_path


def test_what_was_not_used_for_long_goes(folder):
    for entry in folder.iterdir():
        age(entry, KEPT_DAYS + 1)
    remove_unused(folder)
    assert not list(folder.iterdir())


def test_what_was_used_lately_stays(folder):
    for entry in folder.iterdir():
        age(entry, KEPT_DAYS + 1)
        mark_used(entry)
    remove_unused(folder)
    assert (folder / "file").is_file()
    assert (folder / "folder" / "inside").is_file()


def test_marking_does_not_change_the_time_of_change(folder):
    before = (folder / "file").stat().st_mtime_ns
    mark_used(folder / "file")
    assert (folder / "file").stat().st_mtime_ns == before


def test_old_copies_of_data_go_when_a_new_one_is_made_and_not_before():
    old = cached_copy("old", ".jsonl", lambda: [b"1\n"])
    age(old, KEPT_DAYS + 1)
    assert cached_copy("old", ".jsonl", lambda: []) == old
    age(old, KEPT_DAYS - 1)
    cached_copy("newer", ".jsonl", lambda: [b"2\n"])
    assert old.is_file()
    age(old, KEPT_DAYS + 1)
    cached_copy("newest", ".jsonl", lambda: [b"3\n"])
    assert not old.is_file()
