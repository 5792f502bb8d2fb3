"""How completions are made: settings closed, a predictor with its place in the cache; no torch."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp.commands.foundation import Foundation
from exp.config.schema import Accelerator, Constrain, Strategy, TrainConfig
from exp.data.notation import open_writing
from exp.errors import ConfigError
from exp.generation.cache.store import PredictionCache
from exp.generation.context import key_context
from exp.generation.predictor import Predictor
from exp.generation.settings import CPU_SLOTS, GPU_SLOTS, GenerationSettings, fold_tokens
from exp.generation.template import read_template
from exp.records import Derived
from exp.rundir import RunDir
from exp.training.checkpoint import ADAPTER, ADAPTER_CONFIG

if TYPE_CHECKING:
    from exp.generation.constraint import Constraint

log = logging.getLogger(__name__)


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
        run: Keeps the template of the training completions, and the words of its answers.
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
        run: Keeps the template of the training completions, and the words of its answers; None
            drafts from the input alone.

    Raises:
        ConfigError: The schema says something that decoding cannot be held to, or grounded decoding
            has no run to learn from.
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
    if generation.constrain is not Constrain.none:
        constraint = open_constraint(foundation, generation.constrain, run)
        settings = replace(settings, constraint=constraint)
    if generation.drafting:
        known = run is not None and run.template.is_file()
        settings = replace(
            settings,
            template=read_template(run.template) if run is not None and known else None,
            fold=partial(fold_tokens, renderer.tokenizer),
        )
    return settings


def for_base_model(config: TrainConfig) -> tuple[TrainConfig, tuple[Derived, ...]]:
    """Set how the base model decodes before training: by nothing that training rows taught."""
    if config.generation.constrain is not Constrain.grounded:
        return config, ()
    generation = replace(config.generation, constrain=Constrain.schema)
    reason = "the base model's scores: grounded decoding goes by what training rows taught"
    derived = Derived("generation.constrain before", Constrain.schema.value, reason)
    return replace(config, generation=generation), (derived,)


def open_constraint(
    foundation: Foundation, constrain: Constrain, run: RunDir | None
) -> "Constraint":
    """Make what completions must obey.

    Args:
        foundation: Task and tokenizer.
        constrain: schema or grounded.
        run: Knows the words of its training answers.

    Raises:
        ConfigError: The schema says something that decoding cannot be held to, or there is no run.
    """
    from exp.generation.constraint import Constraint, GroundedConstraint
    from exp.generation.grounding.schema import GroundedSchema
    from exp.generation.grounding.storage import read_grounding

    task, renderer = foundation.task, foundation.renderer
    grammar, vocabulary = renderer.writing.grammar, (renderer.tokenizer, renderer.stop_ids)
    assert grammar is not None
    assert task.schema is not None
    if constrain is Constrain.schema:
        return Constraint(grammar, *vocabulary)
    if run is None:
        raise ConfigError(
            "generation.constrain=grounded needs a run, whose training rows tell how answers take "
            "words from inputs.",
            where="generation.constrain",
            fix="run=<a run folder>, or generation.constrain=schema",
        )
    grounding = read_grounding(run.grounding)

    def grammar_of(schema: dict[str, Any]) -> dict[str, Any]:
        written = open_writing(task.notation, task.output_format, schema).grammar
        assert written is not None
        return written

    grounded = GroundedSchema(task.schema, grounding, grammar_of)
    for path in grounded.unreached:
        log.warning(
            "grounded decoding leaves %s free: the schema has no plain string or number there",
            ".".join(path),
        )
    for path, share in grounding.left_free.items():
        name = ".".join(path)
        log.warning("grounded decoding leaves %s free: inputs lack %.0f%% of it", name, 100 * share)
    return GroundedConstraint(grammar, grounded, renderer.read_input, *vocabulary)
