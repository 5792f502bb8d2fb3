"""Find the files of a translation model: a local folder, else the hub.

Many translation models lie on the hub as pickles alone. The hub's own converter keeps their weights
as safetensors in a pull request; where the repository itself has none, that is taken.
"""

import importlib.util
import logging
from pathlib import Path

from exp.errors import MissingExtraError, ModelError
from exp.model.source import NO_SAFETENSORS, ModelFiles, download

FILES = ("*.json", "*.safetensors", "*.txt", "*.spm", "*.model")
CONVERTER = "SFconvertbot"
CONVERSION = "Adding `safetensors` variant of this model"

log = logging.getLogger(__name__)


def locate_translator(name: str, revision: str | None, setting: str) -> ModelFiles:
    """Find the files of a translation model, downloading them where that is needed.

    Args:
        name: A folder, or owner/name on the hub. The folder is looked at first.
        revision: Branch, tag or commit on the hub.
        setting: The setting that names the model, for error messages.

    Raises:
        ModelError: Neither has the model, with safetensors.
        MissingExtraError: Its tokenizer needs a package that is not installed.
    """
    folder = Path(name).expanduser()
    found = _in_folder(folder) if folder.is_dir() else _on_hub(name, revision)
    if isinstance(found, str):
        raise ModelError(
            f"The translation model {name} is not to be had: {found}.",
            where=f"{setting}={name}",
            fix=f"{setting}=<a folder that save_pretrained wrote, with safetensors and tokenizer>, "
            "or connect to the hub"
            + (f" and choose {setting}_revision=refs/pr/<n>" if found == NO_SAFETENSORS else ""),
        )
    _check_tokenizer(found, f"{setting}={name}")
    return found


def translator_files(files: ModelFiles) -> list[Path]:
    """List all files that decide what a translation model says, in a stable order."""
    assert files.folder is not None
    return sorted({path for pattern in FILES for path in files.folder.glob(pattern)})


def _in_folder(folder: Path) -> ModelFiles | str:
    if not (folder / "config.json").is_file():
        return "the folder has no config.json"
    if not any(folder.glob("*.safetensors")):
        return NO_SAFETENSORS
    return ModelFiles(folder, f"folder {folder}")


def _on_hub(name: str, revision: str | None) -> ModelFiles | str:
    found = download(name, revision, FILES)
    if found != NO_SAFETENSORS or revision is not None:
        return found
    converted = _converted_revision(name)
    if converted is None:
        return found
    log.info("%s has no safetensors of its own; taking the hub's, %s", name, converted)
    return download(name, converted, FILES)


def _converted_revision(name: str) -> str | None:
    """Name the pull request that the hub's own converter, and nobody else, has opened."""
    from huggingface_hub import get_repo_discussions
    from huggingface_hub.errors import HfHubHTTPError

    try:
        for request in get_repo_discussions(
            name, author=CONVERTER, discussion_type="pull_request", discussion_status="open"
        ):
            if request.title == CONVERSION and request.author == CONVERTER:
                return request.git_reference
    except (HfHubHTTPError, OSError):
        return None
    return None


def _check_tokenizer(files: ModelFiles, where: str) -> None:
    assert files.folder is not None
    pieces = [*files.folder.glob("*.spm"), *files.folder.glob("*.model")]
    whole = (files.folder / "tokenizer.json").is_file()
    if pieces and not whole and importlib.util.find_spec("sentencepiece") is None:
        raise MissingExtraError("sentencepiece", "translation", where)
