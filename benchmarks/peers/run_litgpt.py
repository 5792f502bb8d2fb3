"""Train with LitGPT's finetune_lora script itself, fed with ready-made token ids.

`litgpt.finetune.lora.setup` builds everything and runs its own loop; losses and durations are the
ones that it writes to its CSV log. It is ended behind the loop: saving and merging are not
compared.
"""

import csv
import importlib.metadata
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protocol
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune import lora
from torch.utils.data import DataLoader


class LoopEnded(Exception):
    """Raised behind LitGPT's training loop."""


@dataclass
class TokenIds(DataModule):
    """Serves rows in file order, in the form that LitGPT's own data sets have."""

    rows: list[protocol.Row]
    batch_size: int = 1

    def connect(
        self,
        tokenizer: Any = None,
        batch_size: int = 1,
        max_seq_length: int | None = None,
        **_: Any,
    ) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.rows)

    def val_dataloader(self) -> DataLoader[Any]:
        """LitGPT validates on two batches before it trains; one is the least it takes."""
        return self._loader(self.rows[: self.batch_size])

    def _loader(self, rows: list[protocol.Row]) -> DataLoader[Any]:
        samples: Any = [_sample(row) for row in rows]
        return DataLoader(samples, batch_size=self.batch_size, collate_fn=get_sft_collate_fn())


def _sample(row: protocol.Row) -> dict[str, Any]:
    length = len(row.input_ids)
    return {
        "input_ids": torch.tensor(row.input_ids),
        "labels": torch.tensor(row.labels),
        "token_counts": {"raw": length, "raw_plus_prompt_template": length},
    }


def main() -> None:
    work = protocol.read_work()
    torch.set_num_threads(work.threads)
    with redirect_stdout(sys.stderr):
        peak_rss_bytes = train(work)
    (log_file,) = work.scratch.rglob("metrics.csv")
    losses, step_seconds = read_log(log_file)
    protocol.report(
        protocol.Measurement(
            framework=f"LitGPT {importlib.metadata.version('litgpt')}",
            losses=losses,
            examples_per_second=protocol.rates(step_seconds),
            peak_rss_bytes=peak_rss_bytes,
        )
    )


def train(work: protocol.Work) -> int:
    """Run LitGPT's script up to the end of its loop and return the peak RSS there, in bytes."""
    peaks: list[int] = []
    original_fit = lora.fit

    def fit_and_end(**arguments: Any) -> None:
        original_fit(**arguments)
        peaks.append(protocol.peak_rss_bytes())
        raise LoopEnded

    lora.fit = fit_and_end
    with suppress(LoopEnded):
        lora.setup(
            checkpoint_dir=work.model.resolve(),
            out_dir=work.scratch,
            precision="bf16-true",
            lora_r=protocol.LORA_R,
            lora_alpha=protocol.LORA_ALPHA,
            lora_dropout=0.0,
            lora_query=True,
            lora_key=True,
            lora_value=True,
            lora_projection=True,
            data=TokenIds(work.rows),
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=protocol.MICRO_BATCH_SIZE,
                micro_batch_size=protocol.MICRO_BATCH_SIZE,
                lr_warmup_steps=1,
                epochs=1,
                max_steps=work.steps,
            ),
            eval=EvalArgs(interval=work.steps + 1, max_new_tokens=1, final_validation=False),
            optimizer={
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": protocol.LEARNING_RATE, "weight_decay": 0.0},
            },
        )
    return peaks[0]


def read_log(file: Path) -> tuple[list[float], list[float]]:
    """Read the loss and the duration in seconds of every step."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["iter_time"]]
    return [float(row["loss"]) for row in rows], [float(row["iter_time"]) for row in rows]


if __name__ == "__main__":
    main()
