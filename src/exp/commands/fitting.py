"""The parts of a training command that need more than a line each."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from exp.commands.foundation import Foundation
from exp.commands.ordering import curriculum, epoch_draws
from exp.commands.prediction import generation_settings
from exp.commands.rank import in_first_process
from exp.config.plain import config_hash
from exp.config.schema import Attention, Layout, LossOn, TrainConfig, TrainingConfig
from exp.data.augmentation.chain import Augmenter
from exp.data.augmentation.served import Variants, longest_variant
from exp.data.datamodule import StepDataModule
from exp.data.plan import BatchPlan, count_labels
from exp.data.selection import Selection, overlong_lines, select_rows
from exp.data.tokens import TokenStore, tokenise
from exp.generation.predictor import Predictor
from exp.generation.settings import with_token_limit
from exp.hardware.resolver import ResolvedHardware
from exp.metrics.score_sheet import score_predictions
from exp.model.context_length import context_length
from exp.model.forward import choose_layout
from exp.model.merge import merged_for_inference, scored_weights
from exp.model.varlen_check import settle_attention
from exp.records import Derived, Example
from exp.rundir import RunDir
from exp.training.validation import Validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The training split as token ids, in the order in which it will be used.

    Attributes:
        hardware: What was settled, with the attention that its batches will be computed by.
    """

    store: TokenStore
    selection: Selection
    plan: BatchPlan
    module: StepDataModule
    hardware: ResolvedHardware
    derived: tuple[Derived, ...]


def close_generation(config: TrainConfig, store: TokenStore) -> tuple[TrainConfig, Derived]:
    """Set what the generation settings leave to the training data."""
    generation, derived = with_token_limit(config.generation, store)
    return replace(config, generation=generation), derived


def select_training_rows(
    foundation: Foundation, config: TrainConfig, store: TokenStore
) -> tuple[TokenStore, Selection]:
    """Decide which rows are used, before a run folder is made or weights are loaded.

    Returns:
        The store, with over-long inputs cut where the configuration says so, and the rows.
    """
    selection = select_rows(store, config.data, _length_limit(foundation, config), config.seed)
    return replace(store, max_tokens=selection.max_tokens), selection


def _length_limit(foundation: Foundation, config: TrainConfig) -> int:
    model_limit = context_length(config.model, foundation.files)
    return config.data.max_length_tokens or model_limit or 2**31


def prepare_data(
    foundation: Foundation,
    config: TrainConfig,
    model: PreTrainedModel,
    store: TokenStore,
    selection: Selection,
    augmenter: Augmenter | None = None,
) -> TrainingData:
    """Choose the layout and what computes its attention, plan every step."""
    for line in overlong_lines(selection):
        log.warning("%s", line)
    lengths = np.asarray(store.lengths[selection.rows])
    longest = int(lengths.max(initial=0))
    if augmenter is not None:
        longest = longest_variant(longest, _length_limit(foundation, config))
    choice = choose_layout(model, config.training.layout, longest)
    if choice.reason is not None:
        log.info("training.layout=%s: %s", choice.layout.name, choice.reason)
    hardware, proven = _with_attention(foundation, config, model, choice.layout)
    training = config.training
    completions = np.asarray(store.completion_lengths[selection.rows])
    draws, drawn = epoch_draws(foundation, config, selection)
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
        draws=draws,
        curriculum=curriculum(foundation, config, model, store, selection, choice.layout),
    )
    variants = None
    if augmenter is not None:
        factor = config.augmentation.factor
        plan = plan.times(factor)
        examples = foundation.task.split("train")
        variants = Variants(
            store, selection.rows, examples, foundation.renderer, augmenter, factor, longest
        )
    if (shortfall := unreached_steps(training, plan)) is not None:
        log.warning("%s", shortfall)
    module = StepDataModule(
        plan,
        store,
        selection,
        training.loss,
        num_workers=hardware.num_workers,
        prefetch_batches=hardware.prefetch_batches,
        variants=variants,
    )
    scored = scored_weights(config.quantization.name, hardware.precision, config.lora)
    derived = (*_derived(config, plan, choice.reason), *proven, *drawn, scored)
    return TrainingData(store, selection, plan, module, hardware, derived)


def _with_attention(
    foundation: Foundation, config: TrainConfig, model: PreTrainedModel, layout: Layout
) -> tuple[ResolvedHardware, tuple[Derived, ...]]:
    """Try FlashAttention at the model's own shapes, where the machine has it; else take SDPA."""
    hardware = foundation.hardware
    if hardware.attention is not Attention.flash:
        return hardware, ()
    choice = settle_attention(model, layout, hardware.attention, config.hardware.attention)
    reason = choice.reason or "at this model's shapes it gives what PyTorch's attention gives"
    derived = Derived("attention of training", choice.attention.value, reason)
    return replace(hardware, attention=choice.attention), (derived,)


def unreached_steps(training: TrainingConfig, plan: BatchPlan) -> str | None:
    """Say that the epochs end before the steps that were asked for; None if they do not."""
    if training.steps is None or plan.num_steps >= training.steps:
        return None
    return (
        f"training.steps={training.steps} is not reached: training.epochs={training.epochs:g} ends "
        f"after {plan.num_steps} steps; training.epochs="
        f"{math.ceil(training.steps / plan.steps_per_epoch)} has as many"
    )


def open_tokens(foundation: Foundation, split: str) -> TokenStore:
    """Tokenise a split, or open its token ids from the cache."""
    examples = foundation.task.split(split)
    return tokenise(examples, examples.content_key, foundation.renderer)


def validator(
    foundation: Foundation,
    config: TrainConfig,
    model: PeftModel,
    examples: Sequence[Example],
    run: RunDir,
) -> Validate:
    """Return a function that scores the model as it is now, by the task's own metrics.

    Only the first process validates; others may be here before it has written what decoding reads.
    """
    if not examples or not in_first_process():
        return lambda: {}
    task = foundation.task
    predictor = Predictor(foundation.renderer, generation_settings(foundation, config, run))
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]

    def validate() -> Mapping[str, float]:
        devices = range(torch.cuda.device_count())
        with merged_for_inference(model), torch.random.fork_rng(devices):
            predictions = predictor.predict(examples, lambda: base)
        sheet = score_predictions(predictions, examples, task.output_format, task.schema)
        return {name: score.value for name, score in sheet.scores.items() if score is not None}

    return validate


def run_identity(
    foundation: Foundation,
    config: TrainConfig,
    store_key: str,
    augmenter: Augmenter | None = None,
) -> dict[str, str]:
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
        **({} if augmenter is None else {"augmentation": augmenter.digest}),
    }


def _derived(config: TrainConfig, plan: BatchPlan, reason: str | None) -> tuple[Derived, ...]:
    training = config.training
    by_epochs = f"{training.epochs} epochs of {plan.steps_per_epoch} steps"
    by_steps = f"training.steps={training.steps}"
    steps_reason = by_epochs if plan.num_steps != training.steps else by_steps
    labels = "completions" if training.loss is LossOn.completion else "all tokens"
    of_epoch = f"loss on {labels}" + ("" if plan.draws is None else ", in the first epoch")
    return (
        Derived("training steps", plan.num_steps, steps_reason),
        Derived("layout", plan.layout.name, reason or "as set"),
        Derived("shared prefix tokens", plan.shared_tokens, "instruction and chat template"),
        Derived("labels per epoch", int(plan.num_labels[plan.members(0)].sum()), of_epoch),
        *_augmented(config, plan),
    )


def _augmented(config: TrainConfig, plan: BatchPlan) -> tuple[Derived, ...]:
    factor = config.augmentation.factor
    if factor == 1:
        return ()
    reason = f"augmentation.factor={factor}: each row and up to {factor - 1} new variants of it"
    return (Derived("examples per epoch", plan.examples_per_epoch, reason),)
