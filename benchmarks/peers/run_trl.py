"""Train with TRL's SFTTrainer, at its defaults but for what the comparison fixes."""

import importlib.metadata
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

import protocol
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Recorder(TrainerCallback):
    """Notes the end of every step and the loss that the trainer logs for it."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.step_seconds: list[float] = []
        self.peak_rss_bytes = 0
        self._last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.step_seconds.append(now - self._last)
        self._last = now
        self.peak_rss_bytes = protocol.peak_rss_bytes()

    def on_log(self, *_: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.losses.append(float(kwargs["logs"]["loss"]))


def main() -> None:
    work = protocol.read_work()
    torch.set_num_threads(work.threads)
    with redirect_stdout(sys.stderr):
        recorder = train(work)
    protocol.report(
        protocol.Measurement(
            framework=f"TRL {importlib.metadata.version('trl')}",
            losses=recorder.losses,
            examples_per_second=protocol.rates(recorder.step_seconds),
            peak_rss_bytes=recorder.peak_rss_bytes,
        )
    )


def train(work: protocol.Work) -> Recorder:
    recorder = Recorder()
    dataset = Dataset.from_list(
        [{"input_ids": row.input_ids, "labels": row.labels} for row in work.rows]
    )
    trainer = SFTTrainer(
        model=str(work.model),
        args=SFTConfig(
            output_dir=str(work.scratch),
            use_cpu=True,
            model_init_kwargs={"dtype": "bfloat16"},
            max_steps=work.steps,
            per_device_train_batch_size=protocol.MICRO_BATCH_SIZE,
            gradient_checkpointing=False,
            learning_rate=protocol.LEARNING_RATE,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(work.model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=protocol.LORA_R,
            lora_alpha=protocol.LORA_ALPHA,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        ),
        callbacks=[recorder],
    )
    trainer.train()
    return recorder


if __name__ == "__main__":
    main()
