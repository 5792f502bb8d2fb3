"""Where the files of a translation model are looked for, and what is said where they are not."""

import importlib.util
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from exp.errors import MissingExtraError, ModelError
from exp.model.translator_files import CONVERSION, locate_translator, translator_files


def fill(folder, *names):
    folder.mkdir(parents=True)
    for name in ("config.json", *names):
        (folder / name).write_text("{}")
    return folder


def request(author="SFconvertbot", title=CONVERSION, number=7):
    return SimpleNamespace(author=author, title=title, git_reference=f"refs/pr/{number}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository of pickles, which its converter has been at; the downloads."""
    pickled = fill(tmp_path / "main", "tokenizer.json")
    converted = fill(tmp_path / "converted", "tokenizer.json", "model.safetensors")
    downloads = []

    def download(repository, revision, allow_patterns):
        downloads.append((repository, revision))
        if repository != "owner/mt":
            raise LocalEntryNotFoundError("not there")
        return str(converted if revision == "refs/pr/7" else pickled)

    requests = [request(author="somebody", number=5), request(title="Typo", number=6), request()]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", lambda *_, **__: iter(requests))
    return SimpleNamespace(downloads=downloads, requests=requests, converted=converted)


def test_a_folder_is_taken_before_the_hub(translation_model, hub):
    folder = translation_model(0)
    files = locate_translator(str(folder), None, "forward")
    assert files.folder == folder
    assert hub.downloads == []
    names = [path.name for path in translator_files(files)]
    assert {"config.json", "generation_config.json", "model.safetensors"} < set(names)
    assert names == sorted(names)


def test_the_hubs_own_conversion_is_taken_where_a_repository_has_pickles_alone(hub):
    assert locate_translator("owner/mt", None, "forward").folder == hub.converted
    assert hub.downloads == [("owner/mt", None), ("owner/mt", "refs/pr/7")]


def test_a_conversion_by_anybody_else_is_not_taken(hub):
    del hub.requests[-1]
    with pytest.raises(ModelError, match="it has no safetensors"):
        locate_translator("owner/mt", None, "forward")


def test_a_revision_that_was_asked_for_is_not_replaced(hub):
    with pytest.raises(ModelError, match=r"choose forward_revision=refs/pr/<n>"):
        locate_translator("owner/mt", "main", "forward")
    assert locate_translator("owner/mt", "refs/pr/7", "forward").folder == hub.converted
    assert hub.downloads == [("owner/mt", "main"), ("owner/mt", "refs/pr/7")]


def test_a_model_that_is_nowhere_is_told_in_three_lines(hub):
    with pytest.raises(ModelError) as caught:
        locate_translator("owner/other", None, "augmentation.back_translation.forward")
    lines = str(caught.value).splitlines()
    assert "owner/other is not to be had: no network, and no copy on this machine" in lines[0]
    assert lines[1] == "  where: augmentation.back_translation.forward=owner/other"
    assert "save_pretrained" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("names", "says"),
    [(("pytorch_model.bin",), "it has no safetensors"), ((), "it has no safetensors")],
)
def test_a_folder_without_safetensors_is_refused(tmp_path, names, says):
    with pytest.raises(ModelError, match=says):
        locate_translator(str(fill(tmp_path / "mt", *names)), None, "forward")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"the folder has no config\.json"):
        locate_translator(str(tmp_path), None, "forward")


def test_a_path_that_is_no_folder_is_a_mistake_without_a_traceback(tmp_path):
    with pytest.raises(ModelError, match="is not to be had"):
        locate_translator(str(tmp_path / "nowhere"), None, "forward")


def test_a_tokenizer_of_sentence_pieces_needs_its_package(tmp_path, monkeypatch):
    folder = fill(tmp_path / "mt", "model.safetensors", "source.spm", "target.spm", "vocab.json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"exp\[translation\]"):
        locate_translator(str(folder), None, "forward")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert locate_translator(str(folder), None, "forward").folder == folder
