"""Operations of an epoch are those that the benchmark counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from exp.config.schema import Layout, LoraConfig, Precision
from exp.data.plan import BatchPlan
from exp.hardware.memory import work
from exp.hardware.memory.phases import Request
from exp.hardware.memory.sizes import read_sizes
from exp.hardware.memory.work import epoch_flops, first_epoch, seconds
from exp.model.lora import attach_lora
from exp.training.benchmark.flops import model_size, useful_flops
from exp.training.benchmark.memory_table import TINY
from exp.training.benchmark.workload import synthetic_rows

LORA = LoraConfig(r=4, target_modules=["all-linear"])
STORE = synthetic_rows(40, 30, 20, 10, 1000, seed=0)


def plan_of(**changes: object) -> BatchPlan:
    settings = {
        "lengths": np.asarray(STORE.lengths),
        "num_labels": np.asarray(STORE.completion_lengths),
        "shared_tokens": len(STORE.head_ids),
        "layout": Layout.shared_prefix,
        "batch_size": 8,
        "micro_batch_tokens": 10_000,
        "micro_batch_size": 4,
        "epochs": 1.0,
        "max_steps": None,
        "seed": 0,
    }
    return BatchPlan(**settings | changes)  # type: ignore[arg-type]


def request_of(plan: BatchPlan) -> Request:
    return Request(
        sizes=read_sizes(TINY | {"model_type": "llama"}, "tiny"),
        lora=LORA,
        optimizer="adamw",
        precision=Precision.fp32,
        plan=plan,
        prompt_tokens=20,
        max_new_tokens=10,
        slots=1,
        on_cpu=True,
        packed=False,
    )


def test_an_epoch_takes_the_operations_that_the_benchmark_counts() -> None:
    plan = plan_of()
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**TINY | {"model_type": "llama"})
        )
    size = model_size(attach_lora(base.requires_grad_(False), LORA, 0, fuse=False))
    expected = useful_flops(size, STORE, [plan.step(n) for n in range(plan.num_steps)])
    assert epoch_flops(request_of(plan), first_epoch(plan), checkpointing=False) == expected


def test_checkpointing_takes_half_as_much_again_of_what_is_computed_again() -> None:
    plan = plan_of()
    epoch = replace(first_epoch(plan), labels=0.0)
    plain, again = (
        epoch_flops(request_of(plan), epoch, checkpointing=each) for each in (False, True)
    )
    assert 1.3 < again / plain <= 1.5


def test_a_sample_of_the_steps_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = first_epoch(plan_of())
    monkeypatch.setattr(work, "MOST_STEPS", 3)
    sampled = first_epoch(plan_of())
    assert sampled.steps == whole.steps
    assert sampled.tokens == pytest.approx(whole.tokens, rel=0.2)


def test_time_is_operations_over_the_reached_share_of_the_peak() -> None:
    assert seconds(1e15, peak_tflops=100, share=0.5, devices=2) == 10
