"""Train with this project's own training code, in the layout shared_prefix."""

import sys
import time
import warnings
from contextlib import redirect_stdout
from typing import Any

import lightning
import protocol
import torch
from torch.utils.data import DataLoader

import exp
from exp.config.schema import (
    Layout,
    LossOn,
    ModelConfig,
    Precision,
    Schedule,
    SchedulerConfig,
    TrainConfig,
)
from exp.data.batch import collate
from exp.data.datamodule import StepBatches
from exp.data.plan import Step
from exp.model.base import load_base
from exp.model.forward import prepare_for_layout
from exp.model.lora import attach_lora
from exp.model.source import ModelFiles
from exp.records import Rendered
from exp.training.module import LoraModule


class StepClock(lightning.Callback):
    """Notes the duration of every step."""

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self._last = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._last = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.perf_counter()
        self.step_seconds.append(now - self._last)
        self._last = now


class FileOrder(torch.utils.data.Dataset[StepBatches]):
    """Steps of one micro-batch each, in the order of the rows, as for the other runners."""

    def __init__(self, rows: list[protocol.Row]) -> None:
        self._rows = [Rendered(tuple(row.prompt_ids), tuple(row.completion_ids)) for row in rows]

    def __len__(self) -> int:
        return len(self._rows) // protocol.MICRO_BATCH_SIZE

    def __getitem__(self, index: int) -> StepBatches:
        start = index * protocol.MICRO_BATCH_SIZE
        members = tuple(range(start, start + protocol.MICRO_BATCH_SIZE))
        rows = [self._rows[member] for member in members]
        names = [str(member) for member in members]
        batch = collate(rows, names, Layout.shared_prefix, LossOn.completion)
        step = Step(
            number=index,
            epoch=0,
            micro_batches=(members,),
            num_labels=len(batch.labels),
            num_examples=len(rows),
        )
        return StepBatches(step, (batch,))


class FileOrderData(lightning.LightningDataModule):
    """Hands Lightning the steps as they are; they stay on the CPU."""

    def __init__(self, rows: list[protocol.Row]) -> None:
        super().__init__()
        self._steps = FileOrder(rows)

    def train_dataloader(self) -> DataLoader[StepBatches]:
        return DataLoader(self._steps, batch_size=None)

    def transfer_batch_to_device(
        self, batch: StepBatches, device: torch.device, dataloader_idx: int
    ) -> StepBatches:
        return batch


def main() -> None:
    work = protocol.read_work()
    torch.set_num_threads(work.threads)
    losses: list[float] = []
    with redirect_stdout(sys.stderr):
        clock = train(work, losses)
    protocol.report(
        protocol.Measurement(
            framework=f"exp {exp.__version__}",
            losses=losses,
            examples_per_second=protocol.rates(clock.step_seconds),
            peak_rss_bytes=protocol.peak_rss_bytes(),
        )
    )


def train(work: protocol.Work, losses: list[float]) -> StepClock:
    config = TrainConfig(
        model=ModelConfig(name=work.model.name),
        scheduler=SchedulerConfig(kind=Schedule.constant, warmup_steps=0),
    )
    config.lora.r, config.lora.alpha = protocol.LORA_R, protocol.LORA_ALPHA
    config.optimizer.lr = protocol.LEARNING_RATE
    config.training.log_every_steps = 1
    files = ModelFiles(work.model, "peer comparison")
    base = load_base(config.model, files, Precision.bf16, config.seed)
    prepare_for_layout(base, Layout.shared_prefix)
    module = LoraModule(
        attach_lora(base, config.lora, config.seed),
        config,
        work.steps,
        True,
        lambda step, epoch, values: losses.append(values["train/loss"]),
    )
    clock = StepClock()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=work.scratch,
        callbacks=[clock],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, datamodule=FileOrderData(work.rows))
    return clock


if __name__ == "__main__":
    main()
