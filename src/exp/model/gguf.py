"""Convert a GGUF file once into a folder that transformers loads like any other model."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from exp.digest import file_digest
from exp.errors import ModelError
from exp.publish import publish_folder

log = logging.getLogger(__name__)


def converted_folder(gguf_file: Path, parent: Path) -> Path:
    """Return the folder with the file's weights as bf16 safetensors, converting them if need be.

    The folder's name holds the digest of the file's content, so another file of the same name is
    another folder. Several processes may ask at once; one converts, the others wait.
    """
    target = parent / f"{gguf_file.stem}-{file_digest(gguf_file)[:16]}"
    if not target.is_dir():
        with FileLock(f"{target}.lock"):
            if not target.is_dir():
                log.info("converting %s to safetensors, once", gguf_file.name)
                started = time.perf_counter()
                with publish_folder(target) as staging:
                    _convert(gguf_file, staging)
                log.info("converted in %.0f s: %s", time.perf_counter() - started, target)
    return target


def _convert(gguf_file: Path, folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    options: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):
        # Since 5.20 GGUF weights stay packed unless one asks for plain ones.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": gguf_file.parent,
        "gguf_file": gguf_file.name,
    }
    try:
        with _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **options)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{gguf_file.name} cannot be read as a GGUF model: {error}",
            where=str(gguf_file),
            fix="use a GGUF file of an architecture that transformers knows, or safetensors",
        ) from error
    # transformers refuses to save a model that it still takes for a quantised one.
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]  # plain attributes, not modules
    model.is_quantized = False  # type: ignore[assignment]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Within the block, let transformers parse a file, and make the table of names, once.

    It reads tokenizer, config and weights by a reader each, of which the vocabulary alone takes
    seconds, and makes the table anew for every module.
    """
    import gguf

    own = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, each in own.items():
        setattr(gguf, name, cache(each))
    try:
        yield
    finally:
        for name, each in own.items():
            setattr(gguf, name, each)
