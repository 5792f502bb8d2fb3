"""Settings that change nothing in the run at hand, although somebody set them."""

from collections.abc import Callable, Iterator
from typing import Any

from exp.config.fields import all_fields
from exp.config.overrides import Given
from exp.config.ranges import value_at
from exp.config.schema import (
    Accelerator,
    AuditConfig,
    AugmentConfig,
    BackTranslationConfig,
    Bench,
    DoctorConfig,
    EvaluateConfig,
    Order,
    OutputFormat,
    Schedule,
    StrategiesConfig,
    Strategy,
    TrackerKind,
    TrainConfig,
)
from exp.config.section import Section

Idle = Callable[[Any], str | None]
"""Gives the reason why a setting has no effect in this configuration, or None where it has one."""


def _unless_strategy(strategy: Strategy) -> Idle:
    return lambda config: (
        None
        if config.generation.strategy is strategy
        else f"generation.strategy is {config.generation.strategy.name}, not {strategy.name}"
    )


def _if(holds: Callable[[Any], bool], reason: str) -> Idle:
    return lambda config: reason if holds(config) else None


_NO_TRACKER = _if(lambda c: c.tracker.kind is TrackerKind.none, "tracker.kind is none")
_NOT_WANDB = _if(lambda c: c.tracker.kind is not TrackerKind.wandb, "only wandb has it")
_NO_CACHE = _if(lambda c: not c.cache.enabled, "cache.enabled is false")
_NO_CURRICULUM = _if(lambda c: c.data.order is Order.shuffle, "data.order is shuffle")
_NOT_IN_TRAINING = _if(lambda c: _measures(c, Bench.training), "exp bench training has none")
_NOT_IN_DOCTOR = _if(lambda c: isinstance(c, DoctorConfig), "exp doctor takes two steps of its own")
_NOT_IN_GENERATION = _if(lambda c: _measures(c, Bench.generation), "exp bench generation has none")


_WHOLE_MODEL = _if(lambda c: c.hardware.device_map is None, "hardware.device_map is null")
_NOT_AUGMENTED = _if(
    lambda c: c.augmentation.factor == 1 and not isinstance(c, AugmentConfig),
    "augmentation.factor is 1, which makes no variants",
)
_NO_LEXICON = _if(
    # Training learns how answers take numbers from inputs wherever there is a schema.
    lambda c: _NOT_AUGMENTED(c) is not None and not (isinstance(c, TrainConfig) and c.task.schema),
    "augmentation.factor is 1, which makes no variants",
)
_NOT_TRANSLATED = _if(
    lambda c: c.augmentation.strategies.back_translation == 0,
    "augmentation.strategies.back_translation is 0",
)
_ONE_TEXT = _if(lambda c: getattr(c, "text", None) is not None, "text= is shown, and no rows")


def _measures(config: Any, what: Bench) -> bool:
    return getattr(config, "what", None) is what


def _without_training(config: Any) -> str | None:
    """Settings of data that a run brings along are not held against the one who evaluates it."""
    if isinstance(config, AuditConfig):
        return "exp audit looks at all rows"
    scores = isinstance(config, EvaluateConfig) and config.run is None
    return "only training has it" if scores and not _measures(config, Bench.training) else None


def _either(first: Idle, second: Idle) -> Idle:
    return lambda config: first(config) or second(config)


IDLE: dict[str, Idle] = {
    **{
        f"generation.{name}": _unless_strategy(Strategy.sample)
        for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
    },
    **{
        f"generation.{name}": _unless_strategy(Strategy.beam)
        for name in ("num_beams", "no_repeat_ngram_size", "length_penalty")
    },
    "generation.drafting": _unless_strategy(Strategy.greedy),
    "scheduler.decay_fraction": _if(
        lambda c: c.scheduler.kind is not Schedule.wsd, "only scheduler.kind=wsd has a decay phase"
    ),
    "scheduler.min_lr_fraction": _if(
        lambda c: c.scheduler.kind is Schedule.constant, "scheduler.kind=constant never falls"
    ),
    "scheduler.warmup_fraction": _if(
        lambda c: c.scheduler.warmup_steps is not None, "scheduler.warmup_steps is set"
    ),
    "model.revision": _if(lambda c: c.model.path is not None, "model.path is looked at first"),
    "task.validation_fraction": _if(
        lambda c: c.task.validation is not None, "task.validation gives the rows"
    ),
    "task.test_fraction": _if(lambda c: c.task.test is not None, "task.test gives the rows"),
    "task.schema": _if(
        lambda c: c.task.output_format is OutputFormat.text, "task.output_format is text"
    ),
    "hardware.tf32": _if(
        lambda c: c.hardware.accelerator is Accelerator.cpu, "hardware.accelerator is cpu"
    ),
    "hardware.fused_optimizer": _if(
        lambda c: value_at(c, "optimizer.name") not in (None, "adamw"),
        "only optimizer=adamw has the choice",
    ),
    "hardware.max_memory": _WHOLE_MODEL,
    "hardware.offload_gib": _WHOLE_MODEL,
    "tracker.project": _either(_NOT_WANDB, _NOT_IN_DOCTOR),
    "tracker.entity": _either(_NOT_WANDB, _NOT_IN_DOCTOR),
    "tracker.tags": _either(_NO_TRACKER, _NOT_IN_DOCTOR),
    "tracker.timeout_seconds": _NO_TRACKER,
    "tracker.num_examples": _either(_NO_TRACKER, _NOT_IN_DOCTOR),
    "cache.force_recompute": _NO_CACHE,
    "cache.max_age_days": _NO_CACHE,
    "split": _either(
        _if(lambda c: hasattr(c, "input"), "the rows come from input="), _NOT_IN_TRAINING
    ),
    "checkpoint": _either(
        _if(lambda c: c.run is None, "without run= the base model is used"), _NOT_IN_TRAINING
    ),
    "limit": _NOT_IN_TRAINING,
    "task.train_weights": _without_training,
    **{f"data.{name}": _without_training for name in ("limit", "fraction", "balance", "order")},
    "data.balance_max_repeat": _either(
        _if(lambda c: c.data.balance is None, "data.balance is null"), _without_training
    ),
    **{
        f"data.{name}": _either(_NO_CURRICULUM, _without_training)
        for name in ("difficulty", "pacing", "pacing_start", "pacing_end")
    },
    "task.monitor": _if(
        lambda c: isinstance(c, AuditConfig | AugmentConfig), "this command scores nothing"
    ),
    **{
        f"augmentation.{name}": _NOT_AUGMENTED
        for name in (
            *("max_strategies", "strength", "renaming"),
            *(f"strategies.{strategy}" for strategy in StrategiesConfig.__dataclass_fields__),
        )
    },
    "augmentation.lexicon": _NO_LEXICON,
    **{
        f"augmentation.back_translation.{name}": _either(_NOT_AUGMENTED, _NOT_TRANSLATED)
        for name in BackTranslationConfig.__dataclass_fields__
    },
    "n": _ONE_TEXT,
    **{
        f"training.{name}": _NOT_IN_DOCTOR
        for name in (
            *("epochs", "steps", "minutes", "batch_size", "micro_batch_size", "validate_every"),
            *("validation_limit", "test_limit", "patience", "log_every_steps", "keep_checkpoints"),
            *("evaluate_base", "base_limit", "resume"),
        )
    },
    **{
        f"bench.{name}": _NOT_IN_GENERATION
        for name in (
            *("steps", "warmup_steps", "batch_size", "micro_batch_size"),
            *("prompt_tokens", "input_tokens", "completion_tokens"),
        )
    },
}


def warnings(config: Section, given: Given) -> Iterator[str]:
    """One sentence for each setting that departs from its default, or was typed, for nothing."""
    known = all_fields(type(config))
    typed = given.keys()
    for key, idle in IDLE.items():
        if key in known and (key in typed or value_at(config, key) != known[key].default):
            reason = idle(config)
            if reason:
                yield f"{key} has no effect in this run: {reason} ({given.where(key)})."
