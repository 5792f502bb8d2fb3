"""How completions are made: settings closed, a predictor with its place in the cache; no torch."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from exp.commands.foundation import Foundation
from exp.config.schema import Accelerator, Constrain, Strategy
from exp.generation.cache.store import PredictionCache
from exp.generation.context import key_context
from exp.generation.predictor import Predictor
from exp.generation.settings import CPU_SLOTS, GPU_SLOTS, GenerationSettings, fold_tokens
from exp.generation.template import read_template
from exp.rundir import RunDir
from exp.training.checkpoint import ADAPTER, ADAPTER_CONFIG


def cached_predictor(
    foundation: Foundation,
    config: Any,
    cache: PredictionCache | None,
    checkpoint: Path | None,
    label: str,
    run: RunDir | None = None,
) -> Predictor:
    """Build the predictor of the base model, or of the base with a checkpoint's adapter.

    Args:
        foundation: Machine, task, model files, rendering.
        config: A TrainConfig or EvaluateConfig.
        cache: Where predictions are kept; None for nowhere.
        checkpoint: Folder of the adapter; None for the base model.
        label: What the predictions are called in `exp cache info`.
        run: Keeps the template of the training completions.
    """
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


def generation_settings(
    foundation: Foundation, config: Any, run: RunDir | None = None
) -> GenerationSettings:
    """Close the generation settings: stop tokens, slots, schema, and what completions look like.

    Args:
        foundation: Device, task, tokenizer.
        config: Its `generation` has a token limit.
        run: Keeps the template of the training completions; None drafts from the input alone.

    Raises:
        ConfigError: The schema says something that decoding cannot be held to.
    """
    generation, renderer = config.generation, foundation.renderer
    on_cpu = foundation.hardware.accelerator is Accelerator.cpu
    settings = GenerationSettings(
        config=generation,
        stop_ids=renderer.stop_ids,
        num_slots=generation.slots or (CPU_SLOTS if on_cpu else GPU_SLOTS),
    )
    if generation.strategy is not Strategy.greedy:
        return settings
    if generation.constrain is Constrain.schema:
        from exp.generation.constraint import Constraint

        grammar = renderer.writing.grammar
        assert grammar is not None
        constraint = Constraint(grammar, renderer.tokenizer, renderer.stop_ids)
        settings = replace(settings, constraint=constraint)
    if generation.drafting:
        known = run is not None and run.template.is_file()
        settings = replace(
            settings,
            template=read_template(run.template) if run is not None and known else None,
            fold=partial(fold_tokens, renderer.tokenizer),
        )
    return settings
