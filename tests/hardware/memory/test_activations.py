"""What is predicted for a training step is what torch's allocator hands out."""

import importlib
from dataclasses import replace

import pytest

from exp.config.schema import Layout, LoraConfig, Precision
from exp.hardware.memory import activations, micro_batch, phases
from exp.hardware.memory.activations import Setup
from exp.hardware.memory.micro_batch import MicroBatch
from exp.hardware.memory.sizes import read_sizes
from exp.training.benchmark.memory_table import LENGTHS, SHAPES, TINY, Cell, Lengths, cells, compare

LARGEST_ERROR = 0.10

ALL = tuple(cells(SHAPES, LENGTHS))
QUICK = tuple(
    Cell(*shape, lengths, again)
    for shape, lengths, again in zip(SHAPES, LENGTHS, (False, True, True), strict=True)
)
OTHERS = {
    "padded": {"layout": Layout.padded},
    "packed": {"layout": Layout.packed},
    "dropout": {"lora": LoraConfig(target_modules=["all-linear"], dropout=0.1)},
    "q and v alone": {"lora": LoraConfig(r=8, target_modules=["q_proj", "v_proj"])},
}


def name(cell: Cell) -> str:
    again = "checkpointing" if cell.checkpointing else "plain"
    return f"{cell.model}, {cell.lengths}, {again}"


@pytest.mark.parametrize("cell", QUICK, ids=name)
def test_the_predicted_peak_is_the_measured_one(cell: Cell) -> None:
    outcome = compare(cell)
    assert abs(outcome.error) <= LARGEST_ERROR, outcome


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in ALL if cell not in QUICK], ids=name)
def test_the_predicted_peak_is_the_measured_one_in_every_cell(cell: Cell) -> None:
    outcome = compare(cell)
    assert abs(outcome.error) <= LARGEST_ERROR, outcome


@pytest.mark.slow
@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_other_layouts_and_adapters_are_predicted_as_well(changes: dict[str, object]) -> None:
    cell = Cell(*SHAPES[0], Lengths(4, 60, 40, 30), checkpointing=False)
    outcome = compare(replace(cell, **changes))  # type: ignore[arg-type]
    assert abs(outcome.error) <= LARGEST_ERROR, outcome


@pytest.mark.parametrize(
    ("ours", "module", "constant"),
    [
        (activations.MATERIALISED_SCORES_BYTES, "exp.model.attention", "MATERIALISED_SCORES_BYTES"),
        (activations.LOGITS_BYTES, "exp.training.loss", "LOGITS_BYTES"),
        (activations.CPU_LOGITS_BYTES, "exp.training.loss", "CPU_LOGITS_BYTES"),
        (micro_batch.SHORTEST_SHARED_PREFIX, "exp.data.batch", "SHORTEST_SHARED_PREFIX"),
        (phases.PREFILL_TOKENS, "exp.generation.engine", "PREFILL_TOKENS"),
        (phases.MOST_SCORES, "exp.generation.engine", "MOST_SCORES"),
        (phases.MOST_LOGITS, "exp.generation.engine", "MOST_LOGITS"),
        (phases.MEMORY_SHARE, "exp.generation.engine", "MEMORY_SHARE"),
    ],
)
def test_limits_are_those_of_the_code_that_computes(ours: int, module: str, constant: str) -> None:
    assert ours == getattr(importlib.import_module(module), constant)


def setup_of(**changes: object) -> Setup:
    sizes = read_sizes(TINY | {"model_type": "llama"}, "tiny")
    settings = {
        "sizes": sizes,
        "itemsize": 2,
        "rank": 16,
        "targets": sizes.linears,
        "dropout": False,
        "fused": True,
        "on_cpu": True,
        "checkpointing": False,
    }
    return Setup(**settings | changes)  # type: ignore[arg-type]


BATCH = MicroBatch(tokens=1000, prefix=200, rows=8, longest=100, labels=300)


def predicted(batch: MicroBatch = BATCH, gradients: bool = False, **changes: object) -> int:
    return activations.activations(setup_of(**changes), batch, gradients=gradients).peak


@pytest.mark.parametrize(
    "larger",
    [
        {"batch": replace(BATCH, tokens=1100)},
        {"batch": replace(BATCH, labels=900_000)},
        {"batch": replace(BATCH, longest=400)},
        {"batch": replace(BATCH, prefix=900)},
        {"gradients": True},
        {"dropout": True},
        {"fused": False},
        {"itemsize": 4},
        {"dequantised": 10**8},
    ],
    ids=str,
)
def test_more_of_anything_needs_more(larger: dict[str, object]) -> None:
    assert predicted(**larger) > predicted()  # type: ignore[arg-type]


def test_checkpointing_keeps_less() -> None:
    assert predicted(checkpointing=True) < predicted()


def test_fused_attention_keeps_no_weights() -> None:
    long = MicroBatch(tokens=1500, prefix=0, rows=1, longest=1500, labels=30)
    assert predicted(long, on_cpu=False) < predicted(long)


def test_the_layers_add_up_without_checkpointing_alone() -> None:
    deep = read_sizes(TINY | {"model_type": "llama", "num_hidden_layers": 12}, "deep")
    shallow = setup_of().sizes
    growth = predicted(sizes=deep) / predicted(sizes=shallow)
    growth_again = predicted(sizes=deep, checkpointing=True) / predicted(checkpointing=True)
    assert growth > 3
    assert growth_again < growth


def test_every_type_has_a_size() -> None:
    assert set(phases.ITEMSIZE) == set(Precision) - {Precision.auto}
