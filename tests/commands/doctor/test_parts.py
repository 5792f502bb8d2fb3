import errno
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from exp.commands.doctor import parts
from exp.config.schema import CacheConfig, ModelConfig, TrackerConfig, TrackerKind, Weights
from exp.errors import HardwareError, MissingExtraError, ModelError, UserError
from exp.generation.cache.database import default_path
from exp.report.doctor_screen import Verdict


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it(tmp_path: Path) -> None:
    found = parts.check_output_folder(str(tmp_path / "not" / "yet"))
    assert found.verdict is Verdict.works
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**given: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(parts.tempfile, "NamedTemporaryFile", read_only)
    with pytest.raises(HardwareError, match="Read-only file system") as caught:
        parts.check_output_folder(str(tmp_path))
    assert caught.value.fix == "output_dir=<folder on another disk>"


def test_a_disk_without_room_for_a_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = parts.shutil.disk_usage(tmp_path)._replace(free=2**29)
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda path: usage)
    found = parts.check_output_folder(str(tmp_path))
    assert found.verdict is Verdict.fails
    assert "0.5 GiB left" in found.detail


def test_a_cache_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError) as caught:
        parts.check_cache_folder()
    assert "EXP_CACHE_DIR" in (caught.value.fix or "")


def test_an_empty_prediction_cache_is_opened_and_read() -> None:
    found = parts.check_cache(CacheConfig())
    assert (found.verdict, found.detail) == (Verdict.works, "0 predictions read and intact")


def test_a_damaged_prediction_is_told_and_does_not_fail_the_setup() -> None:
    parts.check_cache(CacheConfig())
    with sqlite3.connect(default_path()) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(prediction)")]
        values = [b"\0" if name != "created_ms" else 0 for name in names]
        marks = ", ".join("?" for _ in names)
        connection.execute(f"INSERT INTO prediction VALUES ({marks})", values)
    connection.close()
    found = parts.check_cache(CacheConfig())
    assert found.verdict is Verdict.limited
    assert "1 x damaged predictions" in found.detail
    assert found.fix == "exp cache clear"


def test_a_cache_that_is_off_is_not_opened() -> None:
    assert parts.check_cache(CacheConfig(enabled=False)).verdict is Verdict.skipped
    assert not default_path().exists()


def test_random_weights_need_no_files() -> None:
    model = ModelConfig(name="tiny", weights=Weights.random, architecture={"model_type": "llama"})
    assert parts.check_model(model).verdict is Verdict.works


def test_a_model_path_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a GGUF file nor a folder"):
        parts.check_model(ModelConfig(name="mine", path=str(tmp_path)))


def test_a_model_on_a_hub_out_of_reach_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="the hub is out of reach") as caught:
        parts.check_model(ModelConfig(name="mine", hub_id="nobody/nothing-of-this-name"))
    assert "model.path=" in (caught.value.fix or "")


def test_a_tokenizer_alone_in_the_hub_cache_is_no_copy_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--nobody--nothing"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = ModelConfig(name="mine", hub_id="nobody/nothing")
    with pytest.raises(ModelError, match="the hub is out of reach"):
        parts.check_model(model)
    (snapshot / "model.safetensors").touch()
    assert "a copy is on this machine" in parts.check_model(model).detail


@pytest.mark.parametrize("kind", [TrackerKind.csv, TrackerKind.tensorboard])
def test_trackers_of_files_need_no_login(kind: TrackerKind) -> None:
    assert parts.check_tracker(TrackerConfig(kind=kind)).verdict is Verdict.works


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from exp.training.tracker import open as opening

    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError):
        parts.check_tracker(TrackerConfig(kind=TrackerKind.tensorboard))


def test_a_missing_login_is_told_without_asking_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    found = parts.check_tracker(TrackerConfig(kind=TrackerKind.wandb))
    assert (found.verdict, found.fix) == (Verdict.limited, "wandb login")
    assert "kept offline" in found.detail


def test_an_offline_tracker_works_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    found = parts.check_tracker(TrackerConfig(kind=TrackerKind.wandb))
    assert (found.verdict, found.detail) == (Verdict.works, "WANDB_MODE=offline")
