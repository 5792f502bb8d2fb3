"""Measure one rung in a process of its own: a check step, warm-up, then steps by the clock."""

import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from peft import PeftModel
from transformers.utils.logging import disable_progress_bar

from exp.config.schema import Accelerator, Compile, TrainConfig
from exp.data.datamodule import StepDataModule
from exp.data.selection import Selection
from exp.data.tokens import TokenStore
from exp.errors import UserError
from exp.hardware.process import apply_to_process
from exp.hardware.resolver import ResolvedHardware
from exp.model.base import DTYPES, load_base
from exp.model.forward import choose_layout, prepare_for_layout
from exp.model.fused_layer.layer import fuse_layers
from exp.model.lora import attach_lora
from exp.model.packed_linear import pack_linears
from exp.model.source import ModelFiles
from exp.model.varlen_check import settle_attention
from exp.training.benchmark.flops import model_size, useful_flops
from exp.training.benchmark.full_logits import FullLogitsModule
from exp.training.benchmark.gemm_peak import measure_gemm_peak
from exp.training.benchmark.ladder import Rung
from exp.training.benchmark.memory import mark_memory
from exp.training.benchmark.rotation import NotMeasured
from exp.training.benchmark.workload import LadderPlan, ladder_plan
from exp.training.compile import compiled
from exp.training.fit import run_trainer
from exp.training.module import LoraModule, Record

MAX_REASON_CHARACTERS = 120


@dataclass(frozen=True)
class Job:
    """What all rungs share.

    Attributes:
        config: Model, adapter, optimizer, batch sizes and seed; a rung adds the rest.
        files: The model's files.
        hardware: What the machine was found to do.
        store: The examples, as many as the steps take.
        warmup_steps: Steps between the check step and the start of the clock.
    """

    config: TrainConfig
    files: ModelFiles
    hardware: ResolvedHardware
    store: TokenStore
    warmup_steps: int

    @property
    def device(self) -> str:
        return "cpu" if self.hardware.accelerator is Accelerator.cpu else "cuda"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One rung in one repetition.

    Attributes:
        seconds: Time of the steps under the clock.
        examples: Examples in them.
        own_tokens: Tokens in them, the shared head of the prompts left out.
        useful_flops: Operations that they need, see flops.py.
        peak_bytes: Peak memory, from before the model was loaded; None where it is not known.
        loss: Mean loss of the check step, in nats a label.
        gradient_norm: L2 norm of the check step's gradient.
    """

    seconds: float
    examples: int
    own_tokens: int
    useful_flops: float
    peak_bytes: int | None
    loss: float
    gradient_norm: float


def measure_rung(job: Job, rung: Rung) -> Measurement | NotMeasured:
    """Load the model, take the steps as the rung says, measure them.

    To be called in a fresh process, or what others left behind is measured with it.
    """
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # Libraries complain about each other's names; seven processes would repeat it.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return _measure(job, rung)
    except torch.OutOfMemoryError:
        return NotMeasured("out of memory")
    except UserError as error:
        return NotMeasured(error.what)
    except Exception as error:
        # Compilers fail in ways of their own: with errors of any class, bare assertions among them.
        if rung.compile is Compile.off:
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        return NotMeasured(f"torch.compile failed: {words[:MAX_REASON_CHARACTERS]}")


def measure_gemm(job: Job) -> float:
    """Measure the GEMM peak in the type of the base, in FLOP/s."""
    apply_to_process(job.hardware)
    return measure_gemm_peak(job.device, DTYPES[job.hardware.precision])


def _measure(job: Job, rung: Rung) -> Measurement | NotMeasured:
    apply_to_process(job.hardware)
    mark = mark_memory(job.device)
    config, store = job.config, job.store
    model = load_base(config.model, job.files, job.hardware.precision, config.seed)
    choice = choose_layout(model, rung.layout, int(store.lengths.max()))
    if choice.reason is not None and not rung.fused:
        return NotMeasured(choice.reason)
    size_limit = config.training.micro_batch_size or config.training.batch_size
    plan = ladder_plan(
        store, config.training.batch_size, size_limit, choice.layout, rung.length_aware
    )
    model.to(job.device)  # type: ignore[arg-type]
    attention = settle_attention(
        model, choice.layout, job.hardware.attention, config.hardware.attention
    ).attention
    packs = rung.packed_weights and pack_linears(model) > 0
    if rung.packed_weights and not packs and rung.compile is Compile.off:
        return NotMeasured("weights are packed on a CPU and in bf16 only")
    adapted = attach_lora(model, config.lora, config.seed, fuse=rung.fused)
    if rung.whole_layers and not fuse_layers(model):
        return NotMeasured("no layer of this model is one that trains as one function")
    prepare_for_layout(model, choice.layout, attention)
    checked: dict[str, float] = {}

    def record(step: int, epoch: int, values: Mapping[str, float]) -> None:
        checked.update(values)

    first_timed = 1 + job.warmup_steps
    clock = Stopwatch(first_timed, plan.num_steps)
    with compiled(model, rung.compile):
        _take_steps(job, rung, adapted, replace(plan, max_steps=1), 0, record, [WithoutDropout()])
        _take_steps(job, rung, adapted, plan, 1, lambda *_: None, [clock])
    timed = [plan.step(number) for number in range(first_timed, plan.num_steps)]
    rows = [row for step in timed for members in step.micro_batches for row in members]
    # What is useful does not depend on the rung, so it is counted on the leanest cut.
    leanest = replace(plan, length_aware=True)
    return Measurement(
        seconds=clock.seconds,
        examples=len(rows),
        own_tokens=int((store.lengths[rows] - len(store.head_ids)).sum()),
        useful_flops=useful_flops(
            model_size(adapted),
            store,
            [leanest.step(number) for number in range(first_timed, plan.num_steps)],
        ),
        peak_bytes=mark.peak_bytes(),
        loss=checked["train/loss"],
        gradient_norm=checked["train/gradient_norm"],
    )


def _take_steps(
    job: Job,
    rung: Rung,
    model: PeftModel,
    plan: LadderPlan,
    first_step: int,
    record: Record,
    callbacks: list[Callback],
) -> None:
    kind = FullLogitsModule if rung.full_logits else LoraModule
    module = kind(
        model, job.config, plan.num_steps, job.hardware.fused_optimizer, record, first_step
    )
    data = StepDataModule(
        plan,
        job.store,
        Selection(np.arange(len(job.store)), ()),
        job.config.training.loss,
        first_step=first_step,
        num_workers=job.hardware.num_workers,
        prefetch_batches=job.hardware.prefetch_batches,
    )
    with tempfile.TemporaryDirectory(prefix="exp-bench-") as folder:
        run_trainer(module, data, job.config, job.hardware, callbacks, Path(folder))


class WithoutDropout(Callback):
    """Dropout draws depend on how tokens are laid out; with them no losses could be compared."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.eval()


class Stopwatch(Callback):
    """Takes the time from the end of the warm-up to the end of the last step.

    Attributes:
        seconds: Set when the last step is done.
    """

    def __init__(self, first_timed: int, num_steps: int) -> None:
        self._first, self._end = first_timed, num_steps
        self._started = self.seconds = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if pl_module.step == self._first:
            self._started = _now()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.step == self._first:
            self._started = _now()
        elif pl_module.step == self._end:
            self.seconds = _now() - self._started


def _now() -> float:
    """The time at which everything that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
