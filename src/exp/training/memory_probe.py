"""The largest forward and backward of a run, before its first step, for the memory alone.

A lack of memory then shows in the first seconds, and not when the longest examples happen to meet.
The gradient is thrown away and no random number is used up, so the run is what it would have been.
"""

import logging
from dataclasses import replace
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from exp.data.datamodule import StepDataModule
from exp.hardware.memory.micro_batch import Forward
from exp.training.loss import batch_loss
from exp.training.module import LoraModule
from exp.training.out_of_memory import free_memory, is_out_of_memory

log = logging.getLogger(__name__)


class MemoryProbe(Callback):
    """Computes one forward and backward as training begins.

    Attributes:
        fits: Whether it went through; None before.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.fits: bool | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Run it; where memory runs out say so, since its step will be cut smaller."""
        module: LoraModule = pl_module
        try:
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                self._compute(trainer, module)
            self.fits = True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.fits = False
        finally:
            for parameter in module.parameters():
                parameter.grad = None
        if not self.fits:
            free_memory(module.model)
            log.warning(
                "the largest forward, of %d tokens, does not fit; its step will be cut smaller",
                self._forward.batch.tokens,
            )

    def _compute(self, trainer: lightning.Trainer, module: LoraModule) -> None:
        data: StepDataModule = trainer.datamodule  # type: ignore[attr-defined]
        assert self._forward.step is not None
        step = replace(data.plan.step(self._forward.step), micro_batches=(self._forward.members,))
        batch = data.collate_step(step).batches[0].to(module.device)
        with trainer.strategy.precision_plugin.forward_context():
            loss = batch_loss(module.causal_lm, batch)
        (loss / step.num_labels).backward()
