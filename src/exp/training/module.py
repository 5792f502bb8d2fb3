"""The LightningModule: one step, its optimizer, what is logged of it. Nothing else.

Lightning's batch is a whole optimizer step here. Its micro-batches run inside the optimizer's
closure, and each one's summed loss is divided by the labels of the whole step, so neither the cut
into micro-batches nor the number of devices changes the gradient. Lightning's own accumulation
divides by the number of micro-batches instead, which weights short ones too much.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

import lightning
import torch
from peft import PeftModel
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from exp.config.schema import TrainConfig
from exp.data.batch import Batch
from exp.data.datamodule import StepBatches, StepDataModule
from exp.data.plan import Step
from exp.errors import TrainingError
from exp.training.loss import batch_loss
from exp.training.optimizer import build_optimizer
from exp.training.out_of_memory import (
    Severity,
    Shortage,
    describe_recovery,
    free_memory,
    halved,
    is_out_of_memory,
    refuse_step,
    shortage_at,
)
from exp.training.scheduler import learning_rate_factor

log = logging.getLogger(__name__)

Record = Callable[[int, int, Mapping[str, float]], None]
"""Gets (steps done, epoch, named values)."""


class LoraModule(lightning.LightningModule):
    """Trains the adapter of a PEFT model on the steps of a plan.

    Attributes:
        step: Optimizer steps that are done, over all sittings of the run.
        halvings: How often memory ran out; planned micro-batches are halved as often.
    """

    def __init__(
        self,
        model: PeftModel,
        config: TrainConfig,
        num_steps: int,
        fused_optimizer: bool,
        record: Record,
        first_step: int = 0,
        halvings: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.step = first_step
        self.halvings = halvings
        self._config, self._num_steps, self._record = config, num_steps, record
        self._fused = fused_optimizer
        self._since = _Since()
        self._batch_ended: float | None = None
        # The base is not part of a Lightning checkpoint; ours keep the adapter alone.
        self.strict_loading = False

    @property
    def causal_lm(self) -> PreTrainedModel:
        base: PreTrainedModel = self.model.get_base_model()  # type: ignore[assignment]
        return base

    @property
    def gradient_scale(self) -> float | None:
        """What fp16 losses are multiplied by; None in other types."""
        scale = self.trainer.precision_plugin.state_dict().get("scale")
        return None if scale is None else float(scale)

    @property
    def device(self) -> torch.device:
        """Where batches come in."""
        return self.trainer.strategy.root_device

    def cpu(self) -> Self:
        """Stay: Lightning sends models to the CPU when it is done, but scoring comes next."""
        return self

    def configure_optimizers(self) -> Optimizer:
        """Lightning asks once; the learning rate is set before every step."""
        return build_optimizer(self.parameters(), self._config.optimizer, self._fused)

    def on_fit_start(self) -> None:
        """Put every module in train mode: transformers hands models out in eval mode, and
        Lightning keeps what it is given, so dropout and checkpointing would silently be off.
        """
        self.train()
        if self.trainer.world_size > 1:
            for parameter in self.parameters():
                if parameter.requires_grad:
                    torch.distributed.broadcast(parameter.data, src=0)

    def on_train_batch_start(self, batch: StepBatches, batch_idx: int) -> None:
        """Count how long the batch was waited for; validation comes before `_batch_ended`."""
        if self._batch_ended is not None:
            self._since.waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(self, outputs: object, batch: StepBatches, batch_idx: int) -> None:
        self._batch_ended = time.perf_counter()

    def training_step(self, batch: StepBatches, batch_idx: int) -> None:
        """Take one optimizer step over all micro-batches of the batch."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        factor = learning_rate_factor(self.step, self._num_steps, self._config.scheduler)
        for group in optimizer.param_groups:
            group["lr"] = self._config.optimizer.lr * factor
        loss = torch.zeros((), device=self.device)
        if self.halvings:
            batch = self._cut(halved(batch.step, self.halvings))

        def closure() -> Tensor:
            nonlocal batch
            while True:
                optimizer.zero_grad()
                loss.zero_()
                shortage = self._accumulate(batch, loss)
                severity = self._worst_over_ranks(shortage)
                if severity is Severity.fits:
                    break
                optimizer.zero_grad()
                batch = self._recover(batch.step, severity, shortage)
            self._sum_over_ranks(loss)
            return loss

        optimizer.step(closure=closure)
        self.step += 1
        self._log(batch, loss, self._config.optimizer.lr * factor)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip; Lightning calls this with unscaled gradients, and clips itself only in automatic
        optimization.
        """
        limit = self._config.training.gradient_clip_norm
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self._since.gradient_norm = torch.nn.utils.clip_grad_norm_(
            parameters, float("inf") if limit is None else limit
        )

    def _accumulate(self, batch: StepBatches, loss: Tensor) -> Shortage | None:
        """Add up loss and gradients of this rank's micro-batches; stop where memory runs out."""
        index = 0
        try:
            for index, micro_batch in enumerate(batch.batches):
                loss.add_(self._backward(micro_batch, batch, index))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return shortage_at(batch, index, error)
        return None

    def _worst_over_ranks(self, shortage: Shortage | None) -> Severity:
        """Let all ranks repeat a step that one of them cannot finish."""
        severity = Severity.fits if shortage is None else shortage.severity
        if self.trainer.world_size == 1:
            return severity
        worst = torch.tensor(int(severity), device=self.device)
        torch.distributed.all_reduce(worst, op=torch.distributed.ReduceOp.MAX)
        return Severity(int(worst))

    def _recover(self, step: Step, severity: Severity, shortage: Shortage | None) -> StepBatches:
        """Free what the attempt left and cut the step smaller."""
        free_memory(self.model)
        if severity is Severity.hopeless:
            refuse_step(step, shortage, self._config)
        self.halvings += 1
        smaller = halved(step)
        log.warning("%s", describe_recovery(smaller, shortage))
        self._record(self.step, step.epoch, {"train/micro_batch_halvings": self.halvings})
        return self._cut(smaller)

    def _cut(self, step: Step) -> StepBatches:
        data: StepDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        batch = data.collate_step(step)
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return replace(batch, batches=tuple(part.to(self.device) for part in batch.batches))

    def _backward(self, micro_batch: Batch, batch: StepBatches, index: int) -> Tensor:
        self._seed_dropout(batch.step.number, index)
        loss = batch_loss(self.causal_lm, micro_batch) / batch.step.num_labels
        self.manual_backward(loss)
        return loss.detach().to(self.device)

    def _seed_dropout(self, step: int, micro_batch: int) -> None:
        """Let dropout follow from (seed, step, micro-batch, rank), so that resuming repeats it."""
        place = f"{self._config.seed}/{step}/{micro_batch}/{self.global_rank}"
        digest = hashlib.sha256(place.encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def _sum_over_ranks(self, loss: Tensor) -> None:
        """Add up loss and gradients of all ranks; a rank without examples adds nothing."""
        if self.trainer.world_size == 1:
            return
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in parameters
        ]
        flat = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
        torch.distributed.all_reduce(flat)
        loss.copy_(flat[0])
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, part in zip(parameters, flat[1:].split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)

    def _log(self, batch: StepBatches, loss: Tensor, learning_rate: float) -> None:
        """Record every few steps; reading a value off the device waits for it."""
        since = self._since
        since.add(batch)
        last = self.step == self._num_steps
        if self.step % self._config.training.log_every_steps and not last:
            return
        _refuse_divergence(float(loss), self.step, self._config)
        scale = self.gradient_scale
        _refuse_overflow(scale, self.step)
        values = {
            "train/loss": float(loss),
            "train/lr": learning_rate,
            "train/gradient_norm": float(since.gradient_norm),
            **({} if scale is None else {"train/gradient_scale": scale}),
            **since.rates(self.trainer.world_size),
        }
        self._since = _Since()
        self._record(self.step, batch.step.epoch, values)


def _refuse_divergence(loss: float, step: int, config: TrainConfig) -> None:
    """Stop a run whose adapter is lost: nothing brings it back from a loss that is no number.

    Raises:
        TrainingError: It is not finite.
    """
    if math.isfinite(loss):
        return
    rate = config.optimizer.lr
    clipping = "" if config.training.gradient_clip_norm else " training.gradient_clip_norm=1.0"
    raise TrainingError(
        f"The loss is {loss} at step {step}: training has diverged.",
        where=f"optimizer.lr={rate:g}; checkpoints of earlier steps are kept",
        fix=f"optimizer.lr={rate / 4:.2g}{clipping}",
    )


def _refuse_overflow(scale: float | None, step: int) -> None:
    """Stop a run that takes no steps: the scaler leaves out each whose gradients overflow.

    Raises:
        TrainingError: It has found no scale at which they do not.
    """
    if scale is not None and scale < 1:
        raise TrainingError(
            f"Gradients overflow in fp16 at every scale, down to {scale:g} at step {step}: no step "
            "is taken any more.",
            where="hardware.precision=fp16",
            fix="hardware.precision=fp32, or optimizer.lr=<smaller> if the loss has grown",
        )


class _Since:
    """What was computed since the last logged point."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.examples = self.tokens = self.labels = 0
        self.waited = 0.0
        self.gradient_norm = torch.zeros(())

    def add(self, batch: StepBatches) -> None:
        self.examples += batch.step.num_examples
        self.labels += batch.step.num_labels
        self.tokens += sum(part.input_ids.numel() for part in batch.batches)

    def rates(self, num_processes: int) -> dict[str, float]:
        seconds = time.perf_counter() - self.started
        return {
            "train/examples_per_second": self.examples / seconds,
            # Counted in this process; the others compute about as many.
            "train/tokens_per_second": num_processes * self.tokens / seconds,
            # By the clock of this process: a device that is still busy hides some of it.
            "train/data_wait_share": self.waited / seconds,
        }
