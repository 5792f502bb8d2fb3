"""Say in bytes what a prediction depends on, without loading the model."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from exp.config.schema import ModelConfig, Strategy, Weights
from exp.data.render import Renderer
from exp.digest import code_digest, file_digest
from exp.generation.cache.key import KeyContext
from exp.generation.settings import GenerationSettings
from exp.hardware.capability import BITSANDBYTES, CHECKPOINT_QUANTIZATIONS
from exp.hardware.resolver import ResolvedHardware

CODE = (
    *("exp.generation", "exp.model"),
    *(f"exp.data.{name}" for name in ("render", "notation", "positional", "output", "key_order")),
    *(
        f"exp.data.augmentation.{name}"
        for name in ("location", "words", "numerals", "number_words")
    ),
)
"""Packages and modules whose source decides what is generated, and what text it becomes."""


def key_context(
    *,
    model: ModelConfig,
    weight_files: Sequence[Path],
    seed: int,
    adapter_files: Sequence[Path],
    hardware: ResolvedHardware,
    renderer: Renderer,
    settings: GenerationSettings,
) -> KeyContext:
    """Gather the digests and settings that the cache's key consists of.

    Args:
        model: For random weights, architecture and seed stand for the files.
        weight_files: The base's files; read once, then known by size and time.
        seed: Of random weights.
        adapter_files: The adapter's weights and configuration; none for the base alone.
        hardware: Precision, kernels and kind of device.
        renderer: Covers tokenizer, template, instruction.
        settings: How tokens are chosen.
    """
    config = settings.config
    sampled, beams = config.strategy is Strategy.sample, config.strategy is Strategy.beam
    return KeyContext(
        base_weights=_base_digest(model, weight_files, seed),
        adapter=_adapter(adapter_files) if adapter_files else None,
        quantization=_storage(hardware.quantization),
        dtype=hardware.precision.name + (", tf32" if hardware.tf32 else ""),
        attention=hardware.attention.name,
        device_class=_device_class(hardware),
        strategy=config.strategy.name,
        max_new_tokens=settings.max_new_tokens,
        stop_token_ids=settings.stop_ids,
        # Settings that the strategy does not use are not part of what was computed.
        temperature=config.temperature if sampled else 1.0,
        top_k=config.top_k if sampled else None,
        top_p=config.top_p if sampled else None,
        repetition_penalty=config.repetition_penalty if sampled else 1.0,
        num_beams=config.num_beams if beams else 1,
        no_repeat_ngram_size=config.no_repeat_ngram_size if beams else 0,
        length_penalty=config.length_penalty if beams else 1.0,
        constraint=None if settings.constraint is None else settings.constraint.digest,
        drafting=settings.drafting_digest,
        batch_policy=f"slots={settings.num_slots}",
        tokenizer=renderer.digest,
        code=code_digest(CODE),
        torch=version("torch"),
        transformers=version("transformers"),
    )


def _adapter(files: Sequence[Path]) -> str:
    """Name the adapter's bytes, and the package that computes what is not merged."""
    return f"{_files_digest(files)}, peft {version('peft')}"


def _storage(quantization: str) -> str:
    """Name how the base's weights are kept, and the package that decodes them."""
    if quantization in BITSANDBYTES:
        return f"{quantization}, bitsandbytes {version('bitsandbytes')}"
    packages = CHECKPOINT_QUANTIZATIONS.get(quantization, ())
    return ", ".join([quantization, *(f"{name} {version(name)}" for name in packages)])


def _device_class(hardware: ResolvedHardware) -> str:
    kind = f"{hardware.device_name}, {hardware.cpu_threads} threads"
    return kind if hardware.device_map is None else f"{kind}, spread {hardware.device_map.name}"


def _base_digest(model: ModelConfig, files: Sequence[Path], seed: int) -> str:
    if model.weights is Weights.random:
        preimage = json.dumps({"architecture": model.architecture, "seed": seed}, sort_keys=True)
        return "random " + hashlib.sha256(preimage.encode()).hexdigest()
    return _files_digest(files)


def _files_digest(files: Sequence[Path]) -> str:
    digests = {path.name: file_digest(path) for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
