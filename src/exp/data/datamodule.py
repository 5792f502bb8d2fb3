"""Serves the steps of a plan to Lightning, from any step on, whatever the number of workers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from exp.config.schema import Layout, LossOn
from exp.data.augmentation.served import Served, Tally, Variants
from exp.data.batch import Batch, collate
from exp.data.plan import BatchPlan, Step, count_labels
from exp.data.selection import Selection
from exp.data.tokens import TokenStore
from exp.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepBatches:
    """One optimizer step: its place in the plan, and its micro-batches as tensors.

    `tally` says what became of the variants in it, where there are any.
    """

    step: Step
    batches: tuple[Batch, ...]
    tally: Tally | None = None

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
        variants: Variants | None = None,
    ) -> None:
        self._plan, self._store, self._selection = plan, store, selection
        self._loss, self._first_step = loss, first_step
        self._variants = variants

    def __len__(self) -> int:
        return self._plan.num_steps - self._first_step

    def __getitem__(self, index: int) -> StepBatches:
        step = self._plan.step(self._first_step + index)
        if self._variants is None:
            return self.collate_step(step)
        served = self._variants.serve(step.epoch, _members(step))
        step = self._recut(step, served)
        tally = Tally.of([served[member] for member in _members(step)])
        return replace(self._collate_step(step, served), tally=tally)

    def collate_step(self, step: Step) -> StepBatches:
        """Turn a step into tensors, as it is cut."""
        return self._collate_step(step, self._serve(step))

    def _serve(self, step: Step) -> Mapping[int, Served]:
        if self._variants is not None:
            return self._variants.serve(step.epoch, _members(step))
        rows = {member: int(self._selection.rows[member]) for member in _members(step)}
        return {
            member: Served(self._store.example_ids[row], self._store[row])
            for member, row in rows.items()
        }

    def _collate_step(self, step: Step, served: Mapping[int, Served]) -> StepBatches:
        return StepBatches(
            step, tuple(self._collate([served[m] for m in part]) for part in step.micro_batches)
        )

    def _collate(self, examples: Sequence[Served]) -> Batch:
        return collate(
            [example.rendered for example in examples],
            [example.id for example in examples],
            self._plan.layout,
            self._loss,
        )

    def _recut(self, step: Step, served: Mapping[int, Served]) -> Step:
        """Cut a step by the lengths that its variants turned out to have, and count its labels."""
        members = np.asarray(_members(step), dtype=np.int64)
        lengths = np.asarray([served[member].num_tokens for member in members.tolist()], np.int64)
        order = np.argsort(lengths, kind="stable")
        cut = self._plan.cut(members[order], lengths[order])
        return replace(step, micro_batches=cut, num_labels=self._count_labels(step, served))

    def _count_labels(self, step: Step, served: Mapping[int, Served]) -> int:
        """Count the labels of all ranks, where variants have others than their rows."""
        assert self._variants is not None
        if self._loss is LossOn.completion and not self._variants.augmenter.renaming:
            return step.num_labels
        whole = _members(self._whole.step(step.number))
        others = [member for member in whole if member not in served]
        everyone = {**served, **self._variants.serve(step.epoch, others)}
        rendered = [everyone[member] for member in whole]
        lengths = np.asarray([one.num_tokens for one in rendered], np.int64)
        completions = np.asarray([len(one.rendered.completion_ids) for one in rendered], np.int64)
        return int(count_labels(lengths, completions, self._loss).sum())

    @cached_property
    def _whole(self) -> BatchPlan:
        """The plan of all ranks together."""
        return replace(self._plan, rank=0, world_size=1)


def _members(step: Step) -> list[int]:
    return [member for part in step.micro_batches for member in part]


class _ErrorsAsItems(Dataset[StepBatches | UserError]):
    """Hands errors of the user over as items: torch would make the text of a traceback of them."""

    def __init__(self, steps: StepDataset) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> StepBatches | UserError:
        try:
            return self._steps[index]
        except UserError as error:
            return error


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
        variants: Variants | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.store, self.selection, self.loss = plan, store, selection, loss
        self.variants = variants
        self._tally: tuple[int, Tally] | None = None
        self.first_step = first_step
        self.num_workers, self.prefetch_batches = num_workers, prefetch_batches

    @property
    def layout(self) -> Layout:
        return self.plan.layout

    def train_dataloader(self) -> DataLoader[StepBatches | UserError]:
        """Serve this rank's part of every step, in the plan's order."""
        assert self.trainer is not None
        plan = replace(self.plan, rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return DataLoader(
            _ErrorsAsItems(self._dataset(plan)),
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_batches if self.num_workers else None,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def collate_step(self, step: Step) -> StepBatches:
        """Turn a step that was cut otherwise than in the plan into tensors."""
        return self._dataset(self.plan).collate_step(step)

    def _dataset(self, plan: BatchPlan) -> StepDataset:
        return StepDataset(
            plan, self.store, self.selection, self.loss, self.first_step, self.variants
        )

    def transfer_batch_to_device(
        self, batch: StepBatches | UserError, device: torch.device, dataloader_idx: int
    ) -> StepBatches:
        """Move all micro-batches at once; the copies overlap with what the device still does.

        Raises:
            UserError: What kept a worker from making the step.
        """
        if isinstance(batch, UserError):
            raise batch
        self._add_up(batch)
        return replace(batch, batches=tuple(part.to(device) for part in batch.batches))

    def teardown(self, stage: str) -> None:
        """Say what became of the variants of the last epoch."""
        self._tell()

    def _add_up(self, batch: StepBatches) -> None:
        """Keep the epoch's tally here: workers make the variants, this process says so."""
        if batch.tally is None:
            return
        epoch, tally = self._tally or (batch.step.epoch, Tally())
        if epoch != batch.step.epoch:
            self._tell()
            epoch, tally = batch.step.epoch, Tally()
        self._tally = (epoch, tally + batch.tally)

    def _tell(self) -> None:
        if self._tally is not None:
            epoch, tally = self._tally
            log.info("augmentation, epoch %d: %s", epoch + 1, tally.words)
            self._tally = None
