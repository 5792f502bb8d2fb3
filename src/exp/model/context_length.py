"""How long a text a model was made for, read from its settings alone."""

import json

from exp.config.schema import ModelConfig
from exp.model.source import ModelFiles

NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
"""What architectures call it: most by the first name, GPT-2, OPT-like and MPT by the others."""


def context_length(config: ModelConfig, files: ModelFiles) -> int | None:
    """Return the longest text in tokens; None where the model's settings do not say.

    Models that read more than text keep what is about text in a part of its own.
    """
    settings = config.architecture
    if files.folder is not None:
        settings = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
    inner = settings.get("text_config")
    for part in (inner if isinstance(inner, dict) else {}, settings):
        for name in NAMES:
            if isinstance(part.get(name), int):
                return int(part[name])
    return None
