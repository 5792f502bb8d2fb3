"""A tiny model, random token ids and a machine, for tests that really train."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel

from exp.config.schema import (
    LoraConfig,
    ModelConfig,
    TrainConfig,
    TrainingConfig,
)
from exp.data.datamodule import StepDataModule
from exp.data.plan import BatchPlan, count_labels
from exp.data.selection import Selection
from exp.data.tokens import TokenStore
from exp.hardware.resolver import ResolvedHardware
from exp.model.base import load_base
from exp.model.lora import attach_lora
from exp.model.source import ModelFiles
from exp.rundir import RunDir
from exp.training.checkpoint import Checkpoint
from exp.training.fit import FitOutcome, fit

ARCHITECTURE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}


def random_store(num_examples: int = 23, head_tokens: int = 18) -> TokenStore:
    """Ragged rows whose prompts begin alike."""
    random = np.random.default_rng(0)
    own, completions = random.integers(1, 9, (2, num_examples))
    starts = np.concatenate([[0], np.cumsum(own + completions)])
    return TokenStore(
        head_ids=tuple(random.integers(0, 64, head_tokens).tolist()),
        ids=random.integers(0, 64, starts[-1]).astype(np.int32),
        prompt_starts=starts,
        completion_starts=starts[:-1] + own,
        example_ids=[f"row-{i}" for i in range(num_examples)],
    )


@dataclass
class Training:
    """One run of `fit`, and what it left behind."""

    folder: Path
    config: TrainConfig
    hardware: ResolvedHardware
    validate: Callable[[], Mapping[str, float]] = dict
    start: Checkpoint | None = None
    store: TokenStore = field(default_factory=random_store)
    records: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.run = RunDir(self.folder)
        self.model = self._model()
        self.data = self._data()

    def _model(self) -> PeftModel:
        base = load_base(
            ModelConfig(name="tiny", architecture=ARCHITECTURE),
            ModelFiles(None, "random weights"),
            self.hardware.precision,
            seed=0,
        )
        return attach_lora(base, self.config.lora, self.config.seed)

    def _data(self) -> StepDataModule:
        training, store = self.config.training, self.store
        plan = BatchPlan(
            lengths=store.lengths,
            num_labels=count_labels(store.lengths, store.completion_lengths, training.loss),
            shared_tokens=len(store.head_ids),
            layout=training.layout,
            batch_size=training.batch_size,
            micro_batch_tokens=training.micro_batch_tokens,
            micro_batch_size=training.micro_batch_size,
            epochs=training.epochs,
            max_steps=training.steps,
            seed=self.config.seed,
        )
        return StepDataModule(plan, store, Selection(np.arange(len(store)), ()), training.loss)

    def fit(self) -> FitOutcome:
        return fit(
            self.model,
            self.data,
            config=self.config,
            hardware=self.hardware,
            run=self.run,
            validate=self.validate,
            record=lambda step, epoch, values: self.records.append((step, epoch, dict(values))),
            base_name="tiny",
            identity={"configuration": "same"},
            start=self.start,
        )


def train_config(**training: Any) -> TrainConfig:
    """Ten steps of seven examples, unless said otherwise."""
    settings = {"epochs": 99.0, "steps": 10, "batch_size": 7, "log_every_steps": 1} | training
    return TrainConfig(
        lora=LoraConfig(r=4, target_modules=["all-linear"]), training=TrainingConfig(**settings)
    )


@pytest.fixture
def training(tmp_path: Path, cpu_hardware: ResolvedHardware) -> Callable[..., Training]:
    """Build a run in a folder of its own: `training(layout=..., steps=...)`."""
    count = 0

    def build(
        *,
        config: TrainConfig | None = None,
        folder: Path | None = None,
        hardware: ResolvedHardware | None = None,
        validate: Callable[[], Mapping[str, float]] = dict,
        start: Checkpoint | None = None,
        store: TokenStore | None = None,
        lora: LoraConfig | None = None,
        **settings: Any,
    ) -> Training:
        nonlocal count
        count += 1
        config = config or train_config(**settings)
        return Training(
            folder or tmp_path / str(count),
            config if lora is None else replace(config, lora=lora),
            hardware or cpu_hardware,
            validate,
            start,
            store or random_store(),
        )

    return build
