from pathlib import Path

import pytest

from exp.cachedir import cache_dir
from exp.errors import UserError


def test_the_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    assert cache_dir("tokens", "a") == tmp_path / "cache" / "tokens" / "a"
    assert cache_dir("tokens", "a").is_dir()


@pytest.mark.parametrize("chosen", ["{file}", "{file}/below", "~nobody-of-that-name/cache"])
def test_a_place_that_cannot_be_a_folder_is_named(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("EXP_CACHE_DIR", chosen.format(file=file))
    with pytest.raises(UserError, match="cannot be used") as caught:
        cache_dir("tokens")
    assert caught.value.where == f"EXP_CACHE_DIR={chosen.format(file=file)}"


def test_a_folder_that_is_closed_to_writing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("exp.cachedir.os.access", lambda folder, mode: False)
    with pytest.raises(UserError, match="cannot be written to"):
        cache_dir()
