"""A tiny job on the CPU, in fp32: random rows, a random model of two layers."""

from typing import Any

import pytest

from exp.config.schema import (
    LoraConfig,
    ModelConfig,
    Schedule,
    SchedulerConfig,
    TrainConfig,
    TrainingConfig,
    Weights,
)
from exp.hardware.resolver import ResolvedHardware
from exp.model.source import ModelFiles
from exp.training.benchmark.measure import Job
from exp.training.benchmark.workload import synthetic_rows

ARCHITECTURE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.fixture
def job(cpu_hardware: ResolvedHardware) -> Job:
    """Six examples a step, two a micro-batch: one step to check, one to warm up, one to measure."""
    config = TrainConfig(
        model=ModelConfig(name="tiny", weights=Weights.random, architecture=ARCHITECTURE),
        lora=LoraConfig(r=4, dropout=0.2),
        scheduler=SchedulerConfig(kind=Schedule.constant),
        training=TrainingConfig(batch_size=6, micro_batch_size=2),
    )
    store = synthetic_rows(18, 20, 12, 8, vocab_size=97, seed=0)
    return Job(config, ModelFiles(None, "random weights"), cpu_hardware, store, warmup_steps=1)
