"""What training, evaluation and prediction all stand on: machine, task, model files, rendering."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exp.config.groups import main_folder
from exp.config.schema import Accelerator, Compile, Constrain, Strategy
from exp.data.render import Renderer
from exp.data.task import Task, load_task
from exp.generation.settings import CPU_SLOTS, GPU_SLOTS, GenerationSettings, fold_tokens
from exp.generation.template import read_template
from exp.hardware.machine import read_capability, read_versions
from exp.hardware.probe import run_probe
from exp.hardware.profiles import load_profiles
from exp.hardware.resolver import ResolvedHardware, Wishes, resolve_hardware
from exp.model.source import ModelFiles, locate_model
from exp.model.tokenizer import load_chat_format
from exp.rundir import RunDir

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Foundation:
    """The parts that do not change between training and inference."""

    hardware: ResolvedHardware
    task: Task
    files: ModelFiles
    renderer: Renderer


def lay_foundation(config: Any, splits: Sequence[str]) -> Foundation:
    """Settle the hardware, read the task, find the model; without importing torch where it can.

    Args:
        config: A TrainConfig or EvaluateConfig.
        splits: Splits of the task that will be needed.
    """
    training = getattr(config, "training", None)
    wishes = Wishes(quantization=config.quantization.name)
    if training is not None:
        wishes = Wishes(
            compile=training.compile,
            quantization=config.quantization.name,
            clips_gradients=training.gradient_clip_norm is not None,
        )
    hardware = resolve_hardware(
        read_capability(),
        read_versions(),
        run_probe,
        config.hardware,
        wishes,
        load_profiles(main_folder() / "hardware").values(),
    )
    for warning in hardware.warnings:
        log.warning("%s", warning)
    task = load_task(config.task, splits)
    files = locate_model(config.model)
    renderer = Renderer(load_chat_format(files), task.instruction, task.output_format, task.schema)
    return Foundation(hardware, task, files, renderer)


def open_base(foundation: Foundation, config: Any) -> "PreTrainedModel":
    """Load the frozen base onto the device that was settled."""
    from exp.hardware.process import apply_to_process
    from exp.model.base import load_base
    from exp.model.packed_linear import pack_linears

    apply_to_process(foundation.hardware)
    model = load_base(config.model, foundation.files, foundation.hardware.precision, config.seed)
    if foundation.hardware.accelerator is Accelerator.cuda:
        return model.to("cuda")  # type: ignore[arg-type]
    if foundation.hardware.compile is Compile.off:
        pack_linears(model)  # the compiler packs weights itself, and cannot take these
    return model


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

        assert foundation.task.schema is not None
        constraint = Constraint(foundation.task.schema, renderer.tokenizer, renderer.stop_ids)
        settings = replace(settings, constraint=constraint)
    if generation.drafting:
        known = run is not None and run.template.is_file()
        settings = replace(
            settings,
            template=read_template(run.template) if run is not None and known else None,
            folded=fold_tokens(renderer.tokenizer),
        )
    return settings
