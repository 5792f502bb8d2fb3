"""Predicted against measured peaks of training, model by model, length by length."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from torch.profiler import record_function

from exp.config.schema import (
    Accelerator,
    HardwareConfig,
    Layout,
    LoraConfig,
    ModelConfig,
    Precision,
    TrainConfig,
    TrainingConfig,
    Weights,
)
from exp.data.datamodule import StepDataModule
from exp.data.plan import BatchPlan
from exp.data.selection import Selection
from exp.hardware.machine import read_capability, read_versions
from exp.hardware.memory.micro_batch import largest_forwards
from exp.hardware.memory.phases import Request, predict
from exp.hardware.memory.sizes import read_sizes
from exp.hardware.probe import run_probe
from exp.hardware.resolver import resolve_hardware
from exp.model.base import load_base
from exp.model.forward import enable_checkpointing, prepare_for_layout
from exp.model.fused_layer.layer import fuse_layers
from exp.model.lora import attach_lora
from exp.model.packed_linear import pack_linears
from exp.model.source import ModelFiles
from exp.records import Rendered
from exp.training.benchmark.allocations import recorded
from exp.training.benchmark.workload import in_memory
from exp.training.fit import run_trainer
from exp.training.module import LoraModule

STEPS = 2

TINY: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

SHAPES: tuple[tuple[str, dict[str, Any], Precision], ...] = (
    # Embeddings tied, in fp32; then norms of heads, a head of its own and packed weights; then four
    # norms a layer and no fused MLP; then layers that are one function each.
    ("tiny llama", TINY | {"model_type": "llama"}, Precision.fp32),
    ("tiny qwen3", TINY | {"model_type": "qwen3", "tie_word_embeddings": False}, Precision.bf16),
    (
        "tiny gemma3",
        TINY | {"model_type": "gemma3_text", "sliding_window": 1024, "query_pre_attn_scalar": 32},
        Precision.bf16,
    ),
    ("tiny llama in bf16", TINY | {"model_type": "llama"}, Precision.bf16),
)
"""Four shapes whose layers keep different tensors."""


@dataclass(frozen=True)
class Lengths:
    """The examples of a forward, all of one length, and the forwards of a step."""

    examples: int
    shared: int
    own: int
    completion: int
    forwards: int = 1

    def __str__(self) -> str:
        words = f"{self.examples} x ({self.shared} + {self.own} + {self.completion})"
        return words if self.forwards == 1 else f"{self.forwards} times {words}"


@dataclass(frozen=True)
class Cell:
    """One training whose memory is predicted and measured."""

    model: str
    architecture: dict[str, Any] = field(repr=False)
    precision: Precision
    lengths: Lengths
    checkpointing: bool
    layout: Layout = Layout.shared_prefix
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(target_modules=["all-linear"]))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Bytes of a cell, and where the peak was predicted to be."""

    predicted: int
    measured: int
    place: str

    @property
    def error(self) -> float:
        """Relative to what was measured; positive where too much was predicted."""
        return self.predicted / self.measured - 1


LENGTHS = (
    Lengths(8, 40, 16, 12),
    Lengths(4, 100, 60, 40, forwards=2),
    Lengths(2, 200, 500, 100),
)


def cells(
    models: Sequence[tuple[str, dict[str, Any], Precision]], lengths: Sequence[Lengths]
) -> Iterator[Cell]:
    """Every model with every length, with and without checkpointing."""
    for (name, architecture, precision), each, again in product(models, lengths, (False, True)):
        yield Cell(name, architecture, precision, each, again)


def compare(cell: Cell) -> Outcome:
    """Predict a cell, then train it for two steps on the CPU and count every byte."""
    plan = _plan(cell)
    with recorded() as (allocations, marked):
        packed = _train(cell, plan, marked)
    request = Request(
        sizes=read_sizes(cell.architecture, cell.model),
        lora=cell.lora,
        optimizer="adamw",
        precision=cell.precision,
        plan=plan,
        prompt_tokens=cell.lengths.own,
        max_new_tokens=cell.lengths.completion,
        slots=1,
        on_cpu=True,
        packed=packed,
    )
    prediction = predict(
        request, largest_forwards(plan), checkpointing=cell.checkpointing, quantization="none"
    )
    training = next(phase for phase in prediction.phases if phase.name == "training")
    return Outcome(training.total, allocations.peak_bytes, prediction.activations.place)


def _plan(cell: Cell) -> BatchPlan:
    lengths = cell.lengths
    num_examples = lengths.examples * lengths.forwards
    return BatchPlan(
        lengths=np.full(num_examples, lengths.shared + lengths.own + lengths.completion),
        num_labels=np.full(num_examples, lengths.completion),
        shared_tokens=lengths.shared,
        layout=cell.layout,
        batch_size=num_examples,
        micro_batch_tokens=2**31,
        micro_batch_size=lengths.examples,
        epochs=float(STEPS),
        max_steps=None,
        seed=0,
    )


def _train(cell: Cell, plan: BatchPlan, marked: Callable[[], record_function]) -> bool:
    """Train as a run does; tell whether weights were packed."""
    wish = HardwareConfig(name="cpu", accelerator=Accelerator.cpu, precision=cell.precision)
    hardware = resolve_hardware(read_capability(), read_versions(), run_probe, wish)
    model_config = ModelConfig(
        name=cell.model, weights=Weights.random, architecture=cell.architecture
    )
    config = TrainConfig(model=model_config, lora=cell.lora, training=TrainingConfig())
    model = load_base(model_config, ModelFiles(None, "random weights"), cell.precision, seed=0)
    packed = pack_linears(model) > 0
    adapted = attach_lora(model, cell.lora, seed=0)
    fuse_layers(model)
    prepare_for_layout(model, cell.layout)
    if cell.checkpointing:
        enable_checkpointing(model)
    random, lengths = np.random.default_rng(0), cell.lengths
    vocabulary = cell.architecture["vocab_size"]

    def ids(count: int) -> tuple[int, ...]:
        return tuple(random.integers(vocabulary, size=count).tolist())

    head = ids(lengths.shared)
    rows = [
        Rendered((*head, *ids(lengths.own)), ids(lengths.completion))
        for _ in range(plan.batch_size)
    ]
    data = StepDataModule(
        plan,
        in_memory(rows, head),
        Selection(np.arange(len(rows)), ()),
        config.training.loss,
    )
    module = LoraModule(
        adapted, config, plan.num_steps, hardware.fused_optimizer, lambda *_: None, 0
    )
    with marked(), tempfile.TemporaryDirectory(prefix="exp-memory-") as folder:
        run_trainer(module, data, config, hardware, [], Path(folder))
    return packed
