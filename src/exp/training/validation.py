"""Validate at planned steps, keep checkpoints, remember the best, stop when nothing gets better."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from exp.config.schema import TrainConfig
from exp.data.plan import BatchPlan
from exp.model.lora import adapter_config, adapter_weights
from exp.rundir import RunDir
from exp.training.checkpoint import mark_best, prune_checkpoints, write_checkpoint
from exp.training.module import LoraModule, Record
from exp.training.optimizer_state import optimizer_to_tensors

log = logging.getLogger(__name__)

Validate = Callable[[], Mapping[str, float]]
"""Scores the model as it is now on the validation split; {} where there is none."""


@dataclass(slots=True)
class Progress:
    """What validation has seen so far; kept in every checkpoint.

    Attributes:
        best_step: Step of the best score; None before the first validation.
        best_score: The monitored score there.
        stale: Validations since the best one.
    """

    best_step: int | None = None
    best_score: float | None = None
    stale: int = 0

    def update(self, step: int, score: float) -> bool:
        """Take a score in; tell whether it is the best so far."""
        if self.best_score is None or score > self.best_score:
            self.best_step, self.best_score, self.stale = step, score, 0
            return True
        self.stale += 1
        return False


def validation_steps(plan: BatchPlan, every_epochs: float) -> frozenset[int]:
    """Return the numbers of done steps behind which to validate; the last one is among them."""
    interval = max(1, round(every_epochs * plan.steps_per_epoch))
    return frozenset({*range(interval, plan.num_steps + 1, interval), plan.num_steps})


class Validation(Callback):
    """Scores, checkpoints and stops; the score itself comes from `validate`."""

    def __init__(
        self,
        run: RunDir,
        config: TrainConfig,
        plan: BatchPlan,
        validate: Validate,
        record: Record,
        base_name: str,
        identity: Mapping[str, Any],
        progress: Progress,
    ) -> None:
        self._run, self._config, self._plan = run, config, plan
        self._validate, self._record = validate, record
        self._base_name, self._identity = base_name, dict(identity)
        self._steps = validation_steps(plan, config.training.validate_every)
        self._deadline: float | None = None
        self.progress = progress
        self.stopped_by: str | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock of `training.minutes`."""
        minutes = self._config.training.minutes
        if minutes is not None:
            self._deadline = time.monotonic() + 60 * minutes

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate where the plan says so, or where the time is up."""
        module: LoraModule = pl_module
        time_is_up = False
        if self._deadline is not None:
            # Clocks differ by a hair, and a process that stopped alone would leave others waiting.
            time_is_up = trainer.strategy.reduce_boolean_decision(
                time.monotonic() >= self._deadline, all=False
            )
        if time_is_up and module.step not in self._steps:
            log.info("training.minutes=%s is over", self._config.training.minutes)
        if module.step in self._steps or time_is_up:
            self._validate_and_save(trainer, module)
        if time_is_up:
            self.stopped_by = "minutes"
            trainer.should_stop = True

    def _validate_and_save(self, trainer: lightning.Trainer, module: LoraModule) -> None:
        # The first process decodes; the others wait for its scores, so that all stop together.
        scores = self._scores(module) if trainer.is_global_zero else {}
        scores = trainer.strategy.broadcast(scores)
        epoch = self._plan.step(module.step - 1).epoch
        if scores:
            self._record(module.step, epoch, {f"val/{name}": v for name, v in scores.items()})
        # Without a validation split the newest adapter is the best that is known.
        score = scores[self._config.task.monitor] if scores else float(module.step)
        improved = self.progress.update(module.step, score)
        if trainer.is_global_zero:
            save_checkpoint(self._run, module, self._base_name, self._identity, self.progress)
            if improved:
                mark_best(self._run, module.step, score)
            prune_checkpoints(self._run, self._config.training.keep_checkpoints)
        patience = self._config.training.patience
        if patience is not None and self.progress.stale >= patience:
            monitor = self._config.task.monitor
            log.info("no better %s in %d validations: stopping", monitor, patience)
            self.stopped_by = "patience"
            trainer.should_stop = True

    def _scores(self, module: LoraModule) -> dict[str, float]:
        """Validate; where that fails, keep what was trained before the run ends with the error."""
        try:
            return dict(self._validate())
        except Exception:
            save_checkpoint(self._run, module, self._base_name, self._identity, self.progress)
            log.error(
                "validation failed; the adapter of step %d is kept: exp evaluate run=%s "
                "checkpoint=last",
                module.step,
                self._run.path,
            )
            raise


def save_checkpoint(
    run: RunDir,
    module: LoraModule,
    base_name: str,
    identity: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Write everything that going on from this step needs."""
    optimizer = module.optimizers()
    assert not isinstance(optimizer, list)
    tensors, structure = optimizer_to_tensors(optimizer.state_dict())
    write_checkpoint(
        run,
        module.step,
        adapter_weights(module.model),
        adapter_config(module.model, base_name),
        tensors,
        {
            "step": module.step,
            "micro_batch_halvings": module.halvings,
            "gradient_scaler": module.trainer.precision_plugin.state_dict(),
            "optimizer": structure,
            "identity": dict(identity),
            "progress": {
                "best_step": progress.best_step,
                "best_score": progress.best_score,
                "stale": progress.stale,
            },
        },
    )
