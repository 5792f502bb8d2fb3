import hashlib
import os
import subprocess
import sys
import time

import pytest

from exp import digest
from exp.digest import code_digest, file_digest
from exp.errors import UserError


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Remember digests of files of any size that were changed more than no time ago."""
    monkeypatch.setattr(digest, "_REMEMBER_BYTES", 1)
    monkeypatch.setattr(digest, "_SETTLED_NS", -1)
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The files that were really read."""
    names = []
    real = hashlib.file_digest

    def spy(file, name):
        names.append(os.path.basename(file.name))  # noqa: PTH119
        return real(file, name)

    monkeypatch.setattr(digest.hashlib, "file_digest", spy)
    return names


def write(path, content=b"weights"):
    path.write_bytes(content)
    return path


def test_the_digest_is_the_sha256_of_the_bytes(tmp_path, memory):
    path = write(tmp_path / "a")
    for _ in range(2):
        assert file_digest(path, memory) == hashlib.sha256(b"weights").hexdigest()


def test_an_unchanged_file_is_read_once(tmp_path, memory, hashed):
    path = write(tmp_path / "a")
    assert file_digest(path, memory) == file_digest(path, memory)
    assert hashed == ["a"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_one_changed_byte_of_the_same_size_is_noticed(tmp_path, memory, keep_times):
    path = write(tmp_path / "a")
    before = path.stat()
    first = file_digest(path, memory)
    with path.open("r+b") as file:
        file.write(b"W")
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert file_digest(path, memory) == hashlib.sha256(b"Weights").hexdigest() != first


def test_a_file_put_in_the_place_of_another_is_noticed(tmp_path, memory):
    path = write(tmp_path / "a")
    file_digest(path, memory)
    write(tmp_path / "b", b"weightz").replace(path)
    assert file_digest(path, memory) == hashlib.sha256(b"weightz").hexdigest()


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path, memory, monkeypatch, hashed):
    monkeypatch.setattr(digest, "_SETTLED_NS", 10**9 * 3600)
    path = write(tmp_path / "a")
    file_digest(path, memory)
    file_digest(path, memory)
    assert hashed == ["a", "a"]
    assert list(memory.iterdir()) == []


def test_small_files_are_not_remembered(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(digest, "_REMEMBER_BYTES", 8)
    file_digest(write(tmp_path / "a"), memory)
    assert list(memory.iterdir()) == []


def test_a_damaged_or_misplaced_memory_is_not_believed(tmp_path, memory):
    one, two = write(tmp_path / "one", b"1"), write(tmp_path / "two", b"2")
    file_digest(one, memory)
    (note_one,) = memory.iterdir()
    file_digest(two, memory)
    (note_two,) = set(memory.iterdir()) - {note_one}
    right = hashlib.sha256(b"1").hexdigest()
    content = note_one.read_bytes()
    for wrong in (note_two.read_bytes(), b"", b"[", b'["x"]', content.replace(b"6", b"7", 1), b"1"):
        note_one.write_bytes(wrong)
        assert file_digest(one, memory) == right
        assert note_one.read_bytes() == content


def test_a_memory_that_cannot_be_written_costs_only_time(tmp_path, memory):
    (tmp_path / "file").write_text("")
    path = write(tmp_path / "a")
    assert file_digest(path, tmp_path / "file" / "x") == hashlib.sha256(b"weights").hexdigest()


def test_a_link_is_followed_to_the_file(tmp_path, memory):
    path = write(tmp_path / "a")
    (tmp_path / "link").symlink_to(path)
    assert file_digest(tmp_path / "link", memory) == file_digest(path, memory)


def test_a_missing_file_is_a_clear_error(tmp_path, memory):
    with pytest.raises(UserError, match="missing cannot be read: No such file"):
        file_digest(tmp_path / "missing", memory)


def package(folder, source="x = 1\n", name="sample_package"):
    below = folder / name / "inner"
    below.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    (below / "__init__.py").write_text("")
    (below / "leaf.py").write_text(source)
    return folder


def digest_in(monkeypatch, folder, modules=("sample_package",)):
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        return code_digest(modules)


def test_code_is_not_imported_and_its_place_does_not_matter(tmp_path, monkeypatch):
    one, two = package(tmp_path / "one"), package(tmp_path / "two")
    assert digest_in(monkeypatch, one) == digest_in(monkeypatch, two)


def test_one_changed_character_of_code_changes_the_digest(tmp_path, monkeypatch):
    one, two = package(tmp_path / "one"), package(tmp_path / "two", "x = 2\n")
    assert digest_in(monkeypatch, one) != digest_in(monkeypatch, two)


@pytest.mark.parametrize("change", ["new", "moved"])
def test_a_new_or_moved_module_changes_the_digest(tmp_path, monkeypatch, change):
    one, two = package(tmp_path / "one"), package(tmp_path / "two")
    inner = two / "sample_package" / "inner"
    if change == "new":
        (inner / "more.py").write_text("")
    else:
        (inner / "leaf.py").rename(inner / "leaves.py")
    assert digest_in(monkeypatch, one) != digest_in(monkeypatch, two)


def test_the_order_of_modules_does_not_matter():
    modules = ["exp.errors", "exp.publish"]
    assert code_digest(modules) == code_digest(reversed(modules)) != code_digest(modules[:1])


def test_an_unknown_module_is_refused():
    with pytest.raises(ValueError, match="no source"):
        code_digest(["exp.nothing_like_it"])


def test_the_digest_of_code_is_the_same_in_every_process():
    code = (
        f"from {digest.__name__} import code_digest; print(code_digest(['exp.generation.cache']))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {code_digest(["exp.generation.cache"])}


def test_files_at_rest_are_remembered_by_default(tmp_path, monkeypatch, hashed):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(9 * 2**20)
    later = time.time_ns() + 10 * 10**9
    monkeypatch.setattr(digest.time, "time_ns", lambda: later)
    assert file_digest(path) == file_digest(path)
    assert hashed == ["big"]


def test_without_a_folder_to_remember_in_a_file_is_hashed_all_the_same(
    tmp_path, monkeypatch, memory
):
    path = write(tmp_path / "a")
    monkeypatch.setenv("EXP_CACHE_DIR", str(path / "no" / "folder"))
    assert file_digest(path) == hashlib.sha256(b"weights").hexdigest()
