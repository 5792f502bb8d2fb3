import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from exp.publish import (
    STAGING_PREFIX,
    PublishError,
    clean_staging,
    publish_folder,
    remove_folder,
    write_atomically,
    write_file,
)


class Killed(BaseException):
    """The process is gone: nothing that follows may reach the disk."""


class Disk:
    """Records the calls that change the disk, and lets the k-th one fail or kill.

    After a kill, what was written but not synced is lost, as after a power cut.
    """

    def __init__(self, monkeypatch, fail_at=None, error=None, ignore_fsync=False):
        self.trace, self.fail_at, self.error = [], fail_at, error
        self.ignore_fsync = ignore_fsync
        self.dead = False
        self.staged: list[set[Path]] = []
        self.unsynced: dict[int, Path] = {}
        self.real = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            monkeypatch.setattr(os, name, self._hook(name))

    def _hook(self, name):
        def call(*args, **kwargs):
            if self.dead:
                raise Killed
            target = Path(f"/proc/self/fd/{args[0]}").readlink() if name in BY_FD else args[0]
            self.trace.append((name, Path(os.fsdecode(target))))
            if len(self.trace) - 1 == self.fail_at:
                if self.error:
                    raise OSError(self.error, os.strerror(self.error))
                self.dead = True
                if name == "write":
                    self.real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                raise Killed
            if name == "fsync":
                if self.ignore_fsync:
                    return None
                self.unsynced.pop(os.fstat(args[0]).st_ino, None)
            if name in ("replace", "rename"):
                self.staged.append({Path(target), *Path(target).rglob("*")})
            if name == "write":
                self.unsynced[os.fstat(args[0]).st_ino] = Path(target)
            return self.real[name](*args, **kwargs)

        return call

    def power_cut(self, root: Path):
        """Empty every file whose last write was never synced, wherever it was renamed to."""
        for path in list(root.rglob("*")):
            if path.is_file() and path.stat().st_ino in self.unsynced:
                path.write_bytes(b"")


CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
BY_FD = ("write", "fsync")


def publish(target):
    with publish_folder(target) as staging:
        write_file(staging / "a", b"a" * 100)
        (staging / "sub").mkdir()
        (staging / "sub" / "b").write_text("b")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(STAGING_PREFIX)
    }


def durable_order(trace, staged):
    """Tell whether each rename comes after the sync of all that was staged, before its folder's."""
    renames = [i for i, (name, _) in enumerate(trace) if name in ("replace", "rename")]
    assert renames
    return all(
        paths <= {path for name, path in trace[:i] if name == "fsync"}
        and ("fsync", trace[i][1].parent) in trace[i + 1 :]
        for i, paths in zip(renames, staged, strict=True)
    )


def test_an_atomic_write_replaces_the_content(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    write_atomically(path, "vieja")
    write_atomically(path, "ñandú")
    assert path.read_text("utf-8") == "ñandú"
    assert names(path.parent) == ["file.json"]


def test_a_published_folder_holds_what_the_block_wrote(tmp_path):
    publish(tmp_path / "x" / "target")
    assert content(tmp_path / "x") == {"target/a": b"a" * 100, "target/sub/b": b"b"}


def test_an_existing_target_is_never_written_over(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(PublishError, match="exists already"):
        publish(tmp_path / "target")
    assert names(tmp_path) == ["target"]


def test_a_target_that_appears_meanwhile_is_not_written_over(tmp_path):
    def race():
        with publish_folder(tmp_path / "target"):
            (tmp_path / "target").mkdir()

    with pytest.raises(PublishError, match="exists already"):
        race()
    assert names(tmp_path) == ["target"]


def test_a_block_that_raises_leaves_nothing(tmp_path):
    def fail_midway():
        with publish_folder(tmp_path / "target") as staging:
            write_file(staging / "a", b"a")
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    assert names(tmp_path) == []


def test_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        publish(tmp_path / "target")
        write_atomically(tmp_path / "file", b"1")
    assert sum(name in ("replace", "rename") for name, _ in disk.trace) == 2
    assert durable_order(disk.trace, disk.staged)


@pytest.mark.parametrize("lost", range(5))
def test_the_order_test_notices_a_missing_sync(tmp_path, monkeypatch, lost):
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        publish(tmp_path / "target")
    syncs = [path for name, path in disk.trace if name == "fsync"]
    assert len(set(syncs)) == 5
    gone = list(dict.fromkeys(syncs))[lost]
    assert not durable_order([c for c in disk.trace if c != ("fsync", gone)], disk.staged)


def count_calls(monkeypatch, action):
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        action()
    return len(disk.trace)


def test_a_kill_at_any_call_leaves_the_old_file_or_the_new(tmp_path, monkeypatch):
    calls = count_calls(monkeypatch, lambda: write_atomically(tmp_path / "count", b"new"))
    seen = set()
    for k in range(calls):
        root = tmp_path / str(k)
        write_atomically(root / "file", b"old")
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=k)
            with pytest.raises(Killed):
                write_atomically(root / "file", b"new")
        disk.power_cut(root)
        seen.add((root / "file").read_bytes())
        clean_staging(root)
        assert names(root) == ["file"]
    assert seen == {b"old", b"new"}


def test_a_kill_at_any_call_leaves_no_folder_or_a_whole_one(tmp_path, monkeypatch):
    calls = count_calls(monkeypatch, lambda: publish(tmp_path / "count"))
    whole = content(tmp_path / "count")
    seen = []
    for k in range(calls):
        root = tmp_path / f"root{k}"
        root.mkdir()
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=k)
            with pytest.raises(Killed):
                publish(root / "target")
        disk.power_cut(root)
        clean_staging(root)
        assert names(root) in ([], ["target"])
        seen.append(content(root / "target"))
    assert all(found in ({}, whole) for found in seen)
    assert {} in seen
    assert whole in seen


def test_the_kill_test_notices_that_nothing_is_synced(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"old")
    with monkeypatch.context() as patch:
        disk = Disk(patch, ignore_fsync=True)
        write_atomically(tmp_path / "file", b"new")
    disk.power_cut(tmp_path)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_refusal_at_any_call_is_told_and_leaves_the_old_file(tmp_path, monkeypatch, number):
    path = tmp_path / "file"
    calls = count_calls(monkeypatch, lambda: write_atomically(path, b"old"))
    for k in range(calls):
        write_atomically(path, b"old")
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=k, error=number)
            with pytest.raises(PublishError) as caught:
                write_atomically(path, b"new" * 1000)
        assert str(path) in caught.value.what
        assert "3,000 bytes" in caught.value.what
        assert caught.value.fix
        assert STAGING_PREFIX not in str(caught.value)
        # Only the very last sync comes after the new content took the name.
        renamed = "replace" in [name for name, _ in disk.trace[:k]]
        assert path.read_bytes() == (b"new" * 1000 if renamed else b"old")
        assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refusal_at_any_call_leaves_no_half_folder(tmp_path, monkeypatch, number):
    calls = count_calls(monkeypatch, lambda: publish(tmp_path / "count"))
    whole = content(tmp_path / "count")
    for k in range(calls):
        root = tmp_path / f"root{k}"
        root.mkdir()
        with monkeypatch.context() as patch:
            disk = Disk(patch, fail_at=k, error=number)
            with pytest.raises(PublishError) as caught:
                publish(root / "target")
        assert str(root / "target") in caught.value.what
        renamed = "rename" in [name for name, _ in disk.trace[:k]]
        assert content(root) == ({f"target/{n}": d for n, d in whole.items()} if renamed else {})
        assert names(root) == (["target"] if renamed else [])


def test_a_real_limit_on_file_size_is_told_with_the_bytes_needed(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PublishError, match="5,000 bytes are needed"):
            write_atomically(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"


def test_another_library_running_out_of_space_is_told_with_the_target(tmp_path):
    with (
        pytest.raises(PublishError, match=r"target.*77 bytes are needed"),
        publish_folder(tmp_path / "target", bytes_needed=77),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_that_is_not_about_storage_passes_through(tmp_path):
    with pytest.raises(FileNotFoundError), publish_folder(tmp_path / "target"):
        (tmp_path / "source").read_bytes()


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from exp.publish import publish_folder, write_file
with publish_folder(Path(sys.argv[1]) / "target") as staging:
    write_file(staging / "a", b"a")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_leftovers_are_kept_while_their_writer_lives_and_removed_after_it_was_killed(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout.readline() == b"ready\n"
        assert clean_staging(tmp_path) == []
        writer.kill()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(STAGING_PREFIX)
    assert clean_staging(tmp_path) == [leftover]
    assert list(tmp_path.iterdir()) == []


def test_cleaning_touches_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"1")
    publish(tmp_path / "target")
    (tmp_path / f"{STAGING_PREFIX}x").write_bytes(b"")
    clean_staging(tmp_path)
    assert names(tmp_path) == ["file", "target"]
    assert clean_staging(tmp_path / "missing") == []


def test_a_kill_while_removing_a_folder_leaves_it_whole_or_gone(tmp_path, monkeypatch):
    publish(tmp_path / "count")
    whole = content(tmp_path / "count")
    calls = count_calls(monkeypatch, lambda: remove_folder(tmp_path / "count"))
    for k in range(calls):
        root = tmp_path / str(k)
        publish(root / "target")
        with monkeypatch.context() as patch:
            Disk(patch, fail_at=k)
            with pytest.raises(Killed):
                remove_folder(root / "target")
        clean_staging(root)
        assert content(root) in ({}, {f"target/{n}": d for n, d in whole.items()})
