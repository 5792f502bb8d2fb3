"""Which values are possible for each setting by itself."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from exp.config.overrides import Given
from exp.config.schema import AugmentConfig, StrategiesConfig
from exp.config.section import Section
from exp.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LARGEST = 2**32 - 1
"""Whole numbers beyond it overflow somewhere below, and mean nothing for any setting."""
TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")

Rule = tuple[Callable[[Any], bool], str]


def at_least(low: float) -> Rule:
    return (lambda value: value >= low, f"at least {low:g}")


def above(low: float) -> Rule:
    return (lambda value: value > low, f"more than {low:g}")


def share(*, below_one: bool = False) -> Rule:
    if below_one:
        return (lambda value: 0 <= value < 1, "at least 0 and less than 1")
    return (lambda value: 0 <= value <= 1, "from 0 to 1")


def matches(pattern: re.Pattern[str], words: str) -> Rule:
    return (lambda value: bool(pattern.fullmatch(value)), words)


def among(*choices: str) -> Rule:
    return (lambda value: value in choices, "one of " + ", ".join(choices))


A_NAME = matches(NAME, "a name of letters, digits, dots, dashes and underscores, up to 128")
A_TABLE = (
    lambda value: value == "-" or value.endswith(TABLE_SUFFIXES),
    f"a {', '.join(TABLE_SUFFIXES)} file, or -",
)

RULES: dict[str, Rule] = {
    "name": A_NAME,
    "model.name": A_NAME,
    "model.wheel_parts": at_least(0),
    "hardware.name": A_NAME,
    "hardware.devices": at_least(1),
    "hardware.compute_capability": matches(re.compile(r"\d+\.\d"), "of the form 8.9"),
    "hardware.memory_gib": above(0),
    "hardware.max_memory": (
        lambda value: all(0 < gib < math.inf for gib in value),
        "a list of numbers above 0, one per device",
    ),
    "hardware.offload_gib": above(0),
    "hardware.num_workers": at_least(0),
    "hardware.prefetch_batches": at_least(1),
    "hardware.cpu_threads": at_least(1),
    "hardware.quantize_to": among("nf4", "int8"),
    "hardware.peak_tflops": above(0),
    "hardware.expected_flop_share": share(),
    "lora.r": at_least(1),
    "lora.alpha": above(0),
    "lora.dropout": share(below_one=True),
    "lora.target_modules": (lambda value: len(value) > 0, "a list with at least one layer name"),
    "quantization.name": among("none", "nf4", "int8", "gptq", "awq"),
    "optimizer.name": among("adamw", "adamw_8bit", "paged_adamw_8bit"),
    "optimizer.lr": above(0),
    "optimizer.weight_decay": at_least(0),
    "optimizer.beta1": share(below_one=True),
    "optimizer.beta2": share(below_one=True),
    "optimizer.eps": above(0),
    "scheduler.warmup_fraction": share(),
    "scheduler.warmup_steps": at_least(0),
    "scheduler.min_lr_fraction": share(),
    "scheduler.decay_fraction": share(),
    "training.epochs": (lambda value: 0 < value <= 1e6, "more than 0 and at most 1000000"),
    "training.steps": at_least(1),
    "training.minutes": above(0),
    "training.batch_size": at_least(1),
    "training.micro_batch_size": at_least(1),
    "training.micro_batch_tokens": at_least(1),
    "training.gradient_clip_norm": above(0),
    "training.validate_every": above(0),
    "training.validation_limit": at_least(1),
    "training.test_limit": at_least(1),
    "training.base_limit": at_least(1),
    "training.patience": at_least(1),
    "training.log_every_steps": at_least(1),
    "training.keep_checkpoints": at_least(1),
    "task.name": A_NAME,
    "task.train_weights": (
        lambda value: all(0 < weight < math.inf for weight in value),
        "a list of numbers above 0, one per file of task.train",
    ),
    "task.validation_fraction": share(below_one=True),
    "task.test_fraction": share(below_one=True),
    "task.language": matches(re.compile(r"[a-z]{2}"), "two letters (ISO 639-1), like es"),
    "data.max_length_tokens": at_least(2),
    "data.limit": at_least(1),
    "data.fraction": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "data.balance_max_repeat": at_least(1),
    "data.pacing_start": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "data.pacing_end": share(),
    "augmentation.factor": (lambda value: 1 <= value <= 4, "from 1 to 4"),
    "augmentation.max_strategies": at_least(1),
    "augmentation.strength": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "augmentation.renaming": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    **{
        f"augmentation.strategies.{name}": at_least(0)
        for name in StrategiesConfig.__dataclass_fields__
    },
    "augmentation.back_translation.num_paraphrases": at_least(1),
    "augmentation.back_translation.batch_size": at_least(1),
    "generation.max_new_tokens": at_least(1),
    "generation.slots": at_least(1),
    "generation.temperature": above(0),
    "generation.top_k": at_least(1),
    "generation.top_p": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "generation.repetition_penalty": above(0),
    "generation.num_beams": at_least(1),
    "generation.no_repeat_ngram_size": at_least(0),
    "generation.length_penalty": (math.isfinite, "a finite number"),
    "generation.seed": at_least(0),
    "cache.max_age_days": at_least(0),
    "bench.repetitions": at_least(1),
    "bench.steps": at_least(1),
    "bench.warmup_steps": at_least(1),
    "bench.batch_size": at_least(1),
    "bench.micro_batch_size": at_least(1),
    "bench.prompt_tokens": at_least(0),
    "bench.input_tokens": at_least(1),
    "bench.completion_tokens": at_least(1),
    "tracker.timeout_seconds": above(0),
    "tracker.num_examples": at_least(0),
    "seed": (lambda value: 0 <= value < 2**32, "from 0 to 4294967295"),
    "split": among("train", "validation", "test"),
    "checkpoint": A_NAME,
    "near_similarity": (lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    "min_grounded": share(),
    "num_rows": at_least(0),
    "limit": at_least(1),
    "n": at_least(1),
    "epoch": at_least(0),
    "input": A_TABLE,
    "output": A_TABLE,
}


def value_at(config: Any, key: str) -> Any:
    """The value of a dotted key; None where this configuration has no such part."""
    for part in key.split("."):
        config = getattr(config, part, None)
    return config


def ranges(config: Section, given: Given) -> Iterator[ConfigError]:
    """Every value that is out of its range."""
    for key, (holds, words) in RULES.items():
        value = value_at(config, key)
        if value is None or (key == "output" and isinstance(config, AugmentConfig)):
            continue  # what is an answer there is a file elsewhere
        finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, int) and value > LARGEST:
            words = f"at most {LARGEST}"
        elif finite and holds(value):
            continue
        yield ConfigError(
            f"{key} is {value}, but it has to be {words}.",
            where=given.where(key),
            fix=f"{key}=<{words}>",
        )
