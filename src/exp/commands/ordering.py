"""What decides which examples an epoch takes, and which of them come first."""

import hashlib
import io
import json
import logging
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from transformers import PreTrainedModel

from exp.cachedir import cache_dir
from exp.commands.foundation import Foundation
from exp.config.schema import Difficulty, Layout, Order, TrainConfig, Weights
from exp.data.balance import read_values
from exp.data.curriculum import Curriculum
from exp.data.draws import Draws, draw_by_weight
from exp.data.expiry import mark_used, remove_unused
from exp.data.selection import Selection
from exp.data.tokens import CODE, TokenStore
from exp.digest import code_digest, file_digest
from exp.publish import write_atomically
from exp.records import Derived
from exp.report.progress import progress
from exp.training.example_loss import example_losses

MOST_NAMED = 12

log = logging.getLogger(__name__)


def epoch_draws(
    foundation: Foundation, config: TrainConfig, selection: Selection
) -> tuple[Draws | None, tuple[Derived, ...]]:
    """Weigh training files and balance values, where the configuration says so."""
    weights, field = config.task.train_weights, config.data.balance
    if not weights and field is None:
        return None, ()
    examples = foundation.task.split("train")
    sources = examples.sources[selection.rows]
    values = None if field is None else read_values(examples, selection.rows, field)
    draws = draw_by_weight(
        sources,
        tuple(weights) or None,
        None if values is None else values.numbers,
        config.data.balance_max_repeat,
        config.seed,
    )
    drawn = draws.epoch(0)
    derived = []
    if weights:
        counts = np.bincount(sources[drawn], minlength=len(weights)).tolist()
        rows = np.bincount(sources, minlength=len(weights)).tolist()
        parts = (f"{count} of {own} rows" for count, own in zip(counts, rows, strict=True))
        reason = "an epoch takes " + ", ".join(parts) + ", some several times or in turns"
        derived.append(Derived("task.train_weights", list(weights), reason))
    if values is not None:
        counts = np.bincount(values.numbers[drawn], minlength=len(values.names)).tolist()
        rare = np.argsort(values.counts, kind="stable")[:MOST_NAMED].tolist()
        parts = (f"{values.names[i]} {counts[i]} for {values.counts[i]} rows" for i in rare)
        more = "" if len(rare) == len(values.names) else f", and {len(values.names)} values in all"
        derived.append(Derived("data.balance", field, "per epoch " + ", ".join(parts) + more))
    return draws, tuple(derived)


def curriculum(
    foundation: Foundation,
    config: TrainConfig,
    model: PreTrainedModel,
    store: TokenStore,
    selection: Selection,
    layout: Layout,
) -> Curriculum | None:
    """Find out how difficult each example is, where the order goes by it."""
    data = config.data
    if data.order is Order.shuffle:
        return None
    if data.difficulty is Difficulty.target_tokens:
        difficulty = store.completion_lengths[selection.rows].astype(np.float64)
    else:
        difficulty = _base_losses(foundation, config, model, store, selection, layout)
    return Curriculum(difficulty, data.pacing, data.pacing_start, data.pacing_end)


def _base_losses(
    foundation: Foundation,
    config: TrainConfig,
    model: PreTrainedModel,
    store: TokenStore,
    selection: Selection,
    layout: Layout,
) -> NDArray[np.float64]:
    """Open what the base model thought of these examples, asking it if nobody has yet."""
    path = cache_dir("difficulty") / f"{_key(foundation, config, selection)}.npy"
    if not path.is_file():
        remove_unused(path.parent)
        # Processes of one run ask at the same time; the first one answers for all.
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                with progress("difficulty by the base model", len(selection.rows)) as advance:
                    losses = example_losses(
                        model,
                        store,
                        selection.rows,
                        layout,
                        config.training.micro_batch_tokens,
                        advance,
                    )
                content = io.BytesIO()
                np.save(content, losses)
                write_atomically(path, content.getvalue())
    mark_used(path)
    losses = np.load(path)
    log.info(
        "the base model's loss per completion token: %.3f to %.3f nats",
        losses.min(),
        losses.max(),
    )
    return losses


def _key(foundation: Foundation, config: TrainConfig, selection: Selection) -> str:
    """Hash all that the losses depend on; layouts give the same up to rounding."""
    files: list[Path] = foundation.files.weight_files()
    preimage = {
        "code": code_digest((*CODE, "exp.training.example_loss")),
        "weights": {path.name: file_digest(path) for path in files},
        # Random weights have no files.
        "random": [config.model.architecture, config.seed]
        if config.model.weights is Weights.random
        else None,
        "precision": foundation.hardware.precision.name,
        "quantization": foundation.hardware.quantization,
        "rendering": foundation.renderer.digest,
        "data": foundation.task.split("train").content_key,
        "rows": hashlib.sha256(selection.rows.tobytes()).hexdigest(),
        "max_tokens": selection.max_tokens,
    }
    return hashlib.sha256(json.dumps(preimage, sort_keys=True).encode()).hexdigest()[:32]
