"""A tiny job on the CPU, in fp32: random rows, a random model of two layers."""

from typing import Any

import pytest

from exp.config.schema import (
    Accelerator,
    Attention,
    Compile,
    LoraConfig,
    ModelConfig,
    Precision,
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

HARDWARE = ResolvedHardware(
    name="cpu",
    accelerator=Accelerator.cpu,
    devices=1,
    device_name="CPU",
    memory_gib=1.0,
    precision=Precision.fp32,
    attention=Attention.sdpa,
    tf32=False,
    fused_optimizer=True,
    compile=Compile.off,
    quantization="none",
    num_workers=0,
    prefetch_batches=1,
    cpu_threads=1,
    reasons=(),
    warnings=(),
)


@pytest.fixture
def job() -> Job:
    """Six examples a step, two a micro-batch: one step to check, one to warm up, one to measure."""
    config = TrainConfig(
        model=ModelConfig(name="tiny", weights=Weights.random, architecture=ARCHITECTURE),
        lora=LoraConfig(r=4, dropout=0.2),
        scheduler=SchedulerConfig(kind=Schedule.constant),
        training=TrainingConfig(batch_size=6, micro_batch_size=2),
    )
    store = synthetic_rows(18, 20, 12, 8, vocab_size=97, seed=0)
    return Job(config, ModelFiles(None, "random weights"), HARDWARE, store, warmup_steps=1)
