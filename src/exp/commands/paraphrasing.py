"""Back-translations of texts, made once and kept: each is looked up before a model is loaded."""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from exp.cachedir import cache_dir
from exp.commands.foundation import Foundation
from exp.commands.rank import local_rank
from exp.config.schema import Accelerator, AugmentationConfig, BackTranslationConfig, TrainConfig
from exp.data.augmentation.paraphrases import (
    add_paraphrases,
    compose,
    lines_of,
    read_paraphrases,
)
from exp.data.expiry import mark_used, remove_unused
from exp.data.selection import Selection
from exp.digest import code_digest, file_digest
from exp.errors import HardwareError
from exp.hardware.machine import read_capability
from exp.model.source import ModelFiles
from exp.model.translator_files import locate_translator, translator_files
from exp.report.progress import progress

SECTION = "augmentation.back_translation"
BATCHES_KEPT = 8
"""Batches after which paraphrases are put on the disk; what a kill can lose at the most."""

log = logging.getLogger(__name__)

Paraphrases = Mapping[str, tuple[str, ...]]


def paraphrase_rows(
    foundation: Foundation, config: TrainConfig, selection: Selection
) -> Paraphrases | None:
    """Paraphrase the training rows that are used, where the configuration says so."""
    settings = config.augmentation
    if settings.factor == 1 or settings.strategies.back_translation == 0:
        return None
    examples = foundation.task.split("train")
    on_cpu = foundation.hardware.accelerator is Accelerator.cpu
    from exp.hardware.process import apply_to_process

    apply_to_process(foundation.hardware)
    device = "cpu" if on_cpu else f"cuda:{local_rank()}"
    return open_paraphrases([examples[int(row)].input for row in selection.rows], settings, device)


def open_paraphrases(
    texts: Sequence[str], config: AugmentationConfig, device: str | None = None
) -> Paraphrases | None:
    """Look the paraphrases of texts up, and make those that nobody has made yet.

    Args:
        texts: What is paraphrased, line by line.
        config: The settings.
        device: Where to compute. None: on the first CUDA device, else on the CPU.

    Returns:
        Text -> up to `num_paraphrases` paraphrases. None where back-translation is off.

    Raises:
        ModelError: A model cannot be found, or not be loaded.
        HardwareError: A batch does not fit the device.
    """
    if config.strategies.back_translation == 0:
        return None
    models = config.back_translation
    assert models.forward is not None
    assert models.backward is not None
    forward = locate_translator(models.forward, models.forward_revision, f"{SECTION}.forward")
    backward = locate_translator(models.backward, models.backward_revision, f"{SECTION}.backward")
    lines = lines_of(texts)
    path = cache_dir("paraphrases") / f"{_key(models, forward, backward)}.jsonl"
    # First, since what is old goes: these lines, however old, are still wanted.
    mark_used(path)
    remove_unused(path.parent)
    # Processes of one run ask at the same time; the first one makes them for all.
    with FileLock(f"{path}.lock"):
        kept = read_paraphrases(path)
        # Lines of about one length share a batch.
        new = sorted(
            (line for line in lines if line not in kept), key=lambda line: (len(line), line)
        )
        if new:
            device = device or ("cuda:0" if read_capability().cuda_devices else "cpu")
            _make(new, models, forward, backward, path, device)
            kept = read_paraphrases(path)
    found = {text: compose(text, kept) for text in dict.fromkeys(texts)}
    log.info(
        "back-translation: %d paraphrases of %d texts; %d texts have none, as nothing new came "
        "back, or their lines are too long for the models",
        sum(map(len, found.values())),
        len(found),
        sum(not paraphrases for paraphrases in found.values()),
    )
    return found


def _make(
    lines: Sequence[str],
    config: BackTranslationConfig,
    forward_files: ModelFiles,
    backward_files: ModelFiles,
    path: Path,
    device: str,
) -> None:
    import torch

    from exp.model.translation import load_translator, paraphrase

    forward = load_translator(forward_files, f"{SECTION}.forward", config.forward_prefix, device)
    backward = load_translator(
        backward_files, f"{SECTION}.backward", config.backward_prefix, device
    )
    step = BATCHES_KEPT * config.batch_size
    try:
        with progress("back-translation", len(lines), "lines") as advance:
            for start in range(0, len(lines), step):
                part = lines[start : start + step]
                made = paraphrase(
                    part, forward, backward, config.num_paraphrases, config.batch_size
                )
                add_paraphrases(path, dict(zip(part, made, strict=True)))
                advance(len(part))
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"{config.batch_size} lines at a time are too many for the memory of {device}.",
            where=f"{SECTION}.batch_size={config.batch_size}",
            fix=f"{SECTION}.batch_size={max(1, config.batch_size // 4)}",
        ) from error
    finally:
        del forward, backward
        if device != "cpu":
            torch.cuda.empty_cache()


def _key(config: BackTranslationConfig, forward: ModelFiles, backward: ModelFiles) -> str:
    """Hash all that a line's paraphrases depend on; devices give the same up to rounding."""
    preimage = {
        "code": code_digest(["exp.model.translation"]),
        "transformers": importlib.metadata.version("transformers"),
        "forward": [{p.name: file_digest(p) for p in translator_files(forward)}],
        "backward": [{p.name: file_digest(p) for p in translator_files(backward)}],
        "prefixes": [config.forward_prefix, config.backward_prefix],
        "num_paraphrases": config.num_paraphrases,
    }
    return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()[:32]
