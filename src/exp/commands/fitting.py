"""The parts of a training command that need more than a line each."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from exp.commands.foundation import Foundation, generation_settings
from exp.config.plain import config_hash
from exp.config.schema import LossOn, TrainConfig
from exp.data.datamodule import StepDataModule
from exp.data.plan import BatchPlan, count_labels
from exp.data.selection import Selection, select_rows
from exp.data.tokens import TokenStore, tokenise
from exp.generation.cache.store import PredictionCache
from exp.generation.context import key_context
from exp.generation.predictor import Predictor
from exp.generation.settings import with_token_limit
from exp.metrics.score_sheet import score_predictions
from exp.model.forward import choose_layout
from exp.model.merge import merged_for_inference
from exp.records import Derived, Example
from exp.rundir import RunDir
from exp.training.checkpoint import ADAPTER, ADAPTER_CONFIG
from exp.training.validation import Validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The training split as token ids, in the order in which it will be used."""

    store: TokenStore
    selection: Selection
    plan: BatchPlan
    module: StepDataModule
    derived: tuple[Derived, ...]


def close_generation(config: TrainConfig, store: TokenStore) -> tuple[TrainConfig, Derived]:
    """Set what the generation settings leave to the training data."""
    generation, derived = with_token_limit(config.generation, store)
    return replace(config, generation=generation), derived


def prepare_data(
    foundation: Foundation, config: TrainConfig, model: PreTrainedModel, store: TokenStore
) -> TrainingData:
    """Select rows, choose the layout, plan every step."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    selection = select_rows(store, config.data, limit or 2**31, config.seed)
    for example_id in selection.skipped_ids:
        log.warning("skipped: %s is longer than the limit", example_id)
    lengths = np.asarray(store.lengths[selection.rows])
    choice = choose_layout(model, config.training.layout, int(lengths.max(initial=0)))
    if choice.reason is not None:
        log.info("training.layout=%s: %s", choice.layout.name, choice.reason)
    training = config.training
    completions = np.asarray(store.completion_lengths[selection.rows])
    plan = BatchPlan(
        lengths=lengths,
        num_labels=count_labels(lengths, completions, training.loss),
        shared_tokens=len(store.head_ids),
        layout=choice.layout,
        batch_size=training.batch_size,
        micro_batch_tokens=training.micro_batch_tokens,
        micro_batch_size=training.micro_batch_size,
        epochs=training.epochs,
        max_steps=training.steps,
        seed=config.seed,
    )
    module = StepDataModule(
        plan,
        store,
        selection,
        training.loss,
        num_workers=foundation.hardware.num_workers,
        prefetch_batches=foundation.hardware.prefetch_batches,
    )
    return TrainingData(store, selection, plan, module, _derived(config, plan, choice.reason))


def open_tokens(foundation: Foundation, split: str) -> TokenStore:
    """Tokenise a split, or open its token ids from the cache."""
    examples = foundation.task.split(split)
    return tokenise(examples, examples.content_key, foundation.renderer)


def cached_predictor(
    foundation: Foundation,
    config: TrainConfig,
    cache: PredictionCache | None,
    checkpoint: Path | None,
    label: str,
    run: RunDir | None = None,
) -> Predictor:
    """Build the predictor of the base model, or of the base with a checkpoint's adapter."""
    settings = generation_settings(foundation, config, run)
    adapter = [] if checkpoint is None else [checkpoint / ADAPTER, checkpoint / ADAPTER_CONFIG]
    context = key_context(
        model=config.model,
        weight_files=foundation.files.weight_files(),
        seed=config.seed,
        adapter_files=adapter,
        hardware=foundation.hardware,
        renderer=foundation.renderer,
        settings=settings,
    )
    return Predictor(foundation.renderer, settings, context, cache, label)


def validator(
    foundation: Foundation,
    config: TrainConfig,
    model: PeftModel,
    examples: Sequence[Example],
    run: RunDir,
) -> Validate:
    """Return a function that scores the model as it is now, by the task's own metrics."""
    task = foundation.task
    predictor = Predictor(foundation.renderer, generation_settings(foundation, config, run))
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]

    def validate() -> Mapping[str, float]:
        if not examples:
            return {}
        with merged_for_inference(model), torch.random.fork_rng():
            predictions = predictor.predict(examples, lambda: base)
        sheet = score_predictions(predictions, examples, task.output_format, task.schema)
        return {name: score.value for name, score in sheet.scores.items() if score is not None}

    return validate


def run_identity(foundation: Foundation, config: TrainConfig, store_key: str) -> dict[str, str]:
    """Say what a run is made of; a checkpoint can be gone on from only by the same.

    Where the data lies, when to stop and how to log may change between sittings.
    """
    same = replace(
        config,
        name=None,
        output_dir="",
        hardware=type(config.hardware)(name=""),
        tracker=type(config.tracker)(),
        cache=type(config.cache)(),
        training=replace(config.training, minutes=None, resume=None, keep_checkpoints=1),
    )
    return {
        "configuration": config_hash(same),
        "training data": store_key,
        "rendering": foundation.renderer.digest,
        "precision": foundation.hardware.precision.name,
    }


def _derived(config: TrainConfig, plan: BatchPlan, reason: str | None) -> tuple[Derived, ...]:
    training = config.training
    by_epochs = f"{training.epochs} epochs of {plan.steps_per_epoch} steps"
    by_steps = f"training.steps={training.steps}"
    steps_reason = by_epochs if plan.num_steps != training.steps else by_steps
    labels = "completions" if training.loss is LossOn.completion else "all tokens"
    return (
        Derived("training steps", plan.num_steps, steps_reason),
        Derived("layout", plan.layout.name, reason or "as set"),
        Derived("shared prefix tokens", plan.shared_tokens, "instruction and chat template"),
        Derived("labels per epoch", int(plan.num_labels.sum()), f"loss on {labels}"),
    )
