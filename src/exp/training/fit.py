"""Train an adapter over a plan: build the trainer, go on from a checkpoint, save what comes out."""

import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from peft import PeftModel
from transformers import PreTrainedModel

from exp.config.schema import Accelerator, TrainConfig
from exp.data.datamodule import StepDataModule
from exp.errors import CheckpointError
from exp.hardware.memory.micro_batch import Forward
from exp.hardware.resolver import ResolvedHardware
from exp.model.forward import enable_checkpointing, prepare_for_layout
from exp.model.lora import set_adapter_weights
from exp.rundir import RunDir
from exp.training.checkpoint import Checkpoint
from exp.training.compile import compiled, eagerly
from exp.training.interruption import EXIT_CODES, Interrupted, Interruption
from exp.training.memory_probe import MemoryProbe
from exp.training.module import LoraModule, Record
from exp.training.optimizer_state import tensors_to_optimizer
from exp.training.validation import Progress, Validate, Validation, save_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """How training ended.

    Attributes:
        steps: Optimizer steps done, over all sittings.
        seconds: Wall-clock time of this sitting's training, validations included.
        best_step: Step of the best validation score.
        best_score: The monitored score there.
        stopped_by: "minutes" or "patience", None if all steps were done.
    """

    steps: int
    seconds: float
    best_step: int | None
    best_score: float | None
    stopped_by: str | None


def fit(
    model: PeftModel,
    data: StepDataModule,
    *,
    config: TrainConfig,
    hardware: ResolvedHardware,
    run: RunDir,
    validate: Validate,
    record: Record,
    base_name: str,
    identity: Mapping[str, Any],
    start: Checkpoint | None = None,
    probe: Forward | None = None,
) -> FitOutcome:
    """Train until the plan, the clock or the patience ends.

    Args:
        model: Base with a trainable adapter.
        data: Serves the steps of its plan.
        config: The whole configuration.
        hardware: What the machine was found to do, its attention with this model.
        run: Where checkpoints go.
        validate: Scores the model as it is.
        record: Gets every logged point.
        base_name: Name of the base model, for adapter_config.json.
        identity: Digests of config, data, template and base; a checkpoint of another identity is
            not gone on from.
        start: A verified checkpoint to go on from.
        probe: A forward to compute before the first step, for its memory alone.

    Raises:
        Interrupted: A signal ended training; a checkpoint of the last whole step is there.
        CheckpointError: `start` belongs to another run.
    """
    progress = Progress()
    if start is not None:
        _check_identity(start, identity)
        progress = Progress(**start.state["progress"])
        set_adapter_weights(model, start.adapter, str(start.path))
        data.first_step = start.step
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]
    prepare_for_layout(base, data.layout, hardware.attention)
    if config.training.gradient_checkpointing:
        enable_checkpointing(base)
    module = LoraModule(
        model,
        config,
        data.plan.num_steps,
        hardware.fused_optimizer,
        record,
        data.first_step,
        0 if start is None else start.state.get("micro_batch_halvings", 0),
    )
    validation = Validation(
        run, config, data.plan, eagerly(validate), record, base_name, identity, progress
    )
    interruption = Interruption()
    callbacks: list[Callback] = [validation, interruption]
    if start is not None:
        callbacks.append(_RestoreOptimizer(start))
    if probe is not None:
        callbacks.append(MemoryProbe(probe))
    started = time.perf_counter()
    trainer = run_trainer(module, data, config, hardware, callbacks, run.path)
    seconds = time.perf_counter() - started
    if interruption.received is not None:
        if trainer.is_global_zero:
            save_checkpoint(run, module, base_name, identity, validation.progress)
        raise Interrupted(EXIT_CODES[interruption.received])
    return FitOutcome(
        steps=module.step,
        seconds=seconds,
        best_step=validation.progress.best_step,
        best_score=validation.progress.best_score,
        stopped_by=validation.stopped_by,
    )


def run_trainer(
    module: LoraModule,
    data: StepDataModule,
    config: TrainConfig,
    hardware: ResolvedHardware,
    callbacks: list[Callback],
    folder: Path,
) -> lightning.Trainer:
    """Let Lightning take the steps of a plan, and nothing besides; return the trainer."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    strategy: SingleDeviceStrategy | DDPStrategy = _OneProcess(_device(hardware))
    if hardware.devices > 1:
        strategy = _Processes(timeout=LONGEST_WAIT)
    options: dict[str, Any] = {
        "accelerator": "cpu" if hardware.accelerator is Accelerator.cpu else "cuda",
        "devices": hardware.devices,
        "strategy": strategy,
        # The base has its precision already and adapters are fp32; only fp16 needs a scaler.
        "precision": "16-mixed" if hardware.gradient_scaler else "32-true",
        "max_epochs": 1,  # one pass over the plan, which knows about epochs
        "use_distributed_sampler": False,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        **config.training.trainer_kwargs,
    }
    trainer = lightning.Trainer(callbacks=callbacks, **options)
    with warnings.catch_warnings():
        # Batches are token ids: preparing them in the training process is no bottleneck.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        with compiled(module.causal_lm, hardware.compile):
            trainer.fit(module, datamodule=data)
    return trainer


def _device(hardware: ResolvedHardware) -> str:
    return "cpu" if hardware.accelerator is Accelerator.cpu else "cuda:0"


LONGEST_WAIT = timedelta(days=7)
"""Processes wait while the first one validates; torch would give up after half an hour."""


class _OneProcess(SingleDeviceStrategy):
    """Takes the model where it lies: loading put it there, maybe spread over several devices."""

    def model_to_device(self) -> None:
        """Leave the model where it is."""


class _Processes(DDPStrategy):
    """One process per device, without DDP's wrapper around the model.

    The module sums gradients itself, once a step. The wrapper averages per backward, and even with
    that switched off it talks to the other processes in a forward now and then: processes with
    different numbers of micro-batches would wait for each other for ever.
    """

    def configure_ddp(self) -> None:
        """Leave the model as it is."""


class _RestoreOptimizer(Callback):
    """Puts the optimizer, and fp16's scaler, back into the state of a checkpoint."""

    def __init__(self, start: Checkpoint) -> None:
        self._start = start

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        state = tensors_to_optimizer(self._start.optimizer_tensors, self._start.state["optimizer"])
        (optimizer,) = trainer.optimizers
        optimizer.load_state_dict(state)
        scaler = self._start.state.get("gradient_scaler")
        if scaler:
            trainer.precision_plugin.load_state_dict(scaler)


def _check_identity(start: Checkpoint, identity: Mapping[str, Any]) -> None:
    stored = start.state["identity"]
    different = [name for name, value in identity.items() if stored.get(name) != value]
    if different:
        raise CheckpointError(
            f"The checkpoint was made with another {', '.join(different)}; going on would not be "
            "the same run.",
            where=str(start.path),
            fix="give the settings and data that the run was started with, or start a new run",
        )
