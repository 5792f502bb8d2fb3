"""Serves the steps of a plan to Lightning, from any step on, whatever the number of workers."""

from dataclasses import dataclass, replace

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from exp.config.schema import Layout, LossOn
from exp.data.batch import Batch, collate
from exp.data.plan import BatchPlan, Step
from exp.data.selection import Selection
from exp.data.tokens import TokenStore


@dataclass(frozen=True, slots=True)
class StepBatches:
    """One optimizer step: its place in the plan, and its micro-batches as tensors."""

    step: Step
    batches: tuple[Batch, ...]

    def pin_memory(self) -> "StepBatches":
        """Called by DataLoader."""
        return replace(self, batches=tuple(batch.pin_memory() for batch in self.batches))


class StepDataset(Dataset[StepBatches]):
    """The steps from `first_step` on; item i is step `first_step` + i."""

    def __init__(
        self,
        plan: BatchPlan,
        store: TokenStore,
        selection: Selection,
        loss: LossOn,
        first_step: int,
    ) -> None:
        self._plan, self._store, self._selection = plan, store, selection
        self._loss, self._first_step = loss, first_step

    def __len__(self) -> int:
        return self._plan.num_steps - self._first_step

    def __getitem__(self, index: int) -> StepBatches:
        step = self._plan.step(self._first_step + index)
        return StepBatches(step, tuple(self._collate(part) for part in step.micro_batches))

    def _collate(self, members: tuple[int, ...]) -> Batch:
        rows = [int(self._selection.rows[member]) for member in members]
        return collate(
            [self._store[row] for row in rows],
            [self._store.example_ids[row] for row in rows],
            self._plan.layout,
            self._loss,
        )


class StepDataModule(lightning.LightningDataModule):
    """Hands Lightning one optimizer step at a time, cut into this rank's micro-batches."""

    def __init__(
        self,
        plan: BatchPlan,
        store: TokenStore,
        selection: Selection,
        loss: LossOn,
        *,
        first_step: int = 0,
        num_workers: int = 0,
        prefetch_batches: int = 2,
    ) -> None:
        super().__init__()
        self.plan, self.store, self.selection, self.loss = plan, store, selection, loss
        self.first_step = first_step
        self.num_workers, self.prefetch_batches = num_workers, prefetch_batches

    @property
    def layout(self) -> Layout:
        return self.plan.layout

    def train_dataloader(self) -> DataLoader[StepBatches]:
        """Serve this rank's part of every step, in the plan's order."""
        assert self.trainer is not None
        plan = replace(self.plan, rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return DataLoader(
            StepDataset(plan, self.store, self.selection, self.loss, self.first_step),
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_batches if self.num_workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def transfer_batch_to_device(
        self, batch: StepBatches, device: torch.device, dataloader_idx: int
    ) -> StepBatches:
        """Move all micro-batches at once; the copies overlap with what the device still does."""
        return replace(batch, batches=tuple(part.to(device) for part in batch.batches))
