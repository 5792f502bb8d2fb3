"""What training, evaluation and prediction all stand on: machine, task, model files, rendering."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exp.commands.rank import local_rank
from exp.config.fields import closest
from exp.config.groups import main_folder
from exp.config.schema import Accelerator, Compile
from exp.data.render import Renderer
from exp.data.task import Task, load_task
from exp.errors import ConfigError
from exp.hardware.machine import read_capability, read_versions
from exp.hardware.probe import run_probe
from exp.hardware.profiles import load_profiles
from exp.hardware.resolver import ResolvedHardware, Wishes, resolve_hardware
from exp.metrics.table import METRICS
from exp.model.source import ModelFiles, locate_model
from exp.model.tokenizer import load_chat_format

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
    if training is not None:
        check_monitor(task)
    files = locate_model(config.model)
    chat = load_chat_format(files)
    renderer = Renderer(chat, task.instruction, task.output_format, task.schema, task.notation)
    return Foundation(hardware, task, files, renderer)


def check_monitor(task: Task) -> None:
    """See that the task has the score by which its best checkpoint would be chosen.

    Raises:
        ConfigError: It has none of that name.
    """
    has_schema = task.schema is not None
    names = [name for name, one in METRICS.items() if one.applies(task.output_format, has_schema)]
    if task.monitor not in names:
        near = closest(task.monitor, names)
        raise ConfigError(
            f"task.monitor={task.monitor} is no score of this task"
            + (f"; the closest is {near}." if near else "."),
            where="task.monitor",
            fix=f"task.monitor={near or names[0]}, out of: {', '.join(names)}",
        )


def open_base(foundation: Foundation, config: Any) -> "PreTrainedModel":
    """Load the frozen base onto the device that was settled."""
    from exp.hardware.process import apply_to_process
    from exp.model.base import Storage, load_base
    from exp.model.packed_linear import pack_linears

    apply_to_process(foundation.hardware)
    hardware = foundation.hardware
    on_cpu = hardware.accelerator is Accelerator.cpu
    if not on_cpu:
        import torch

        # What asks for "cuda" alone, kernels above all, is to mean this process's device.
        torch.cuda.set_device(local_rank())
    storage = Storage(
        quantization=hardware.quantization,
        device="cpu" if on_cpu else f"cuda:{local_rank()}",
        device_map=hardware.device_map,
        max_memory=hardware.max_memory,
        offload_gib=hardware.offload_gib,
    )
    model = load_base(config.model, foundation.files, hardware.precision, config.seed, storage)
    if on_cpu and foundation.hardware.compile is Compile.off:
        pack_linears(model)  # the compiler packs weights itself, and cannot take these
    return model
