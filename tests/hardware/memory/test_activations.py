"""What is predicted for a training step is what torch's allocator hands out."""

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from exp.config.schema import Layout, LoraConfig, LossOn, Precision
from exp.data.batch import collate
from exp.hardware.memory import activations, micro_batch, phases
from exp.hardware.memory.activations import Setup
from exp.hardware.memory.micro_batch import MicroBatch
from exp.hardware.memory.sizes import read_sizes
from exp.model.varlen_attention import varlen_attention, varlen_segments
from exp.records import Rendered
from exp.training.benchmark.memory_table import LENGTHS, SHAPES, TINY, Cell, Lengths, cells, compare

LARGEST_ERROR = 0.10

ALL = tuple(cells(SHAPES, LENGTHS))
CUTS = ((LENGTHS[0], False), (LENGTHS[1], True), (LENGTHS[2], True), (LENGTHS[0], False))
QUICK = tuple(Cell(*shape, *cut) for shape, cut in zip(SHAPES, CUTS, strict=True))
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
@pytest.mark.thorough
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
        (activations.ROW_MULTIPLE, "exp.model.packed_linear", "ROW_MULTIPLE"),
        (micro_batch.SHORTEST_SHARED_PREFIX, "exp.data.batch", "SHORTEST_SHARED_PREFIX"),
        (phases.PREFILL_TOKENS, "exp.generation.engine", "PREFILL_TOKENS"),
        (phases.MOST_SCORES, "exp.generation.engine", "MOST_SCORES"),
        (phases.MOST_LOGITS, "exp.generation.engine", "MOST_LOGITS"),
        (phases.CPU_MOST_LOGITS, "exp.generation.engine", "CPU_MOST_LOGITS"),
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


class Kernel(torch.autograd.Function):
    """Keeps what FlashAttention's function for sequences keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *ends: Tensor) -> Tensor:
        output = torch.zeros_like(query)
        log_sums = torch.zeros(query.shape[1], query.shape[0])
        ctx.save_for_backward(query, key, value, output, log_sums, *ends)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value = ctx.saved_tensors[:3]
        return *(torch.zeros_like(each) for each in (query, key, value)), None, None


def kernel(
    query: Tensor, key: Tensor, value: Tensor, *ends: Tensor | int, **options: object
) -> Tensor:
    output: Tensor = Kernel.apply(query, key, value, *ends[:2])
    return output


def kept_bytes(prefix: int, suffixes: list[int]) -> tuple[int, int]:
    """What autograd keeps for one layer's attention: bytes of states, and bytes of indices."""
    rendered = [
        Rendered((*range(prefix), 1000 + index), tuple(range(length - 1)))
        for index, length in enumerate(suffixes)
    ]
    layout = Layout.shared_prefix if prefix else Layout.packed
    cut = collate(rendered, [""] * len(rendered), layout, LossOn.text).segments
    assert cut is not None
    segments = varlen_segments(cut)
    tokens, kept = prefix + sum(suffixes), {}
    # Width 32: 4 heads of queries, and 2 of keys and of values.
    states = [
        torch.randn(1, tokens, heads, 32, dtype=torch.bfloat16).requires_grad_()
        for heads in (4, 2, 2)
    ]

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        varlen_attention(
            torch.nn.Module(),
            *(each.transpose(1, 2) for each in states),
            None,
            scaling=1.0,
            segments=segments,
        )
    if segments.keys is not None:
        pack(segments.keys.tokens)  # made for the forward, and there until its end

    def size(floats: bool) -> int:
        return sum(t.nbytes for t in kept.values() if t.is_floating_point() is floats)

    return size(True), size(False)


@pytest.mark.parametrize(
    ("prefix", "suffixes"), [(20, [1, 9, 4]), (0, [5, 1, 8]), (16, [3, 3]), (0, [7])]
)
def test_what_flash_attention_keeps_is_what_autograd_keeps(
    prefix: int, suffixes: list[int], plain_flash_attn: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flash_attn

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", kernel)
    tokens = prefix + sum(suffixes)
    batch = MicroBatch(tokens, prefix, len(suffixes), max(suffixes), labels=1)
    # Without an adapter behind it the output is kept for the kernel's own backward alone.
    attention = activations._attention(setup_of(varlen=True, targets=()), batch)
    assert kept_bytes(prefix, suffixes) == (attention.kept, attention.indices)
    shared = activations._attention(setup_of(varlen=True), batch)
    assert attention.kept - shared.kept == tokens * 4 * 32 * 2


def test_the_backward_of_flash_attention_takes_what_its_source_says() -> None:
    attention = activations._attention(setup_of(varlen=True), BATCH)
    rows, seen = 1000 + 128 * 9, 1000 + 8 * 200
    sums = 6 * rows * 4 * 32 * 4  # nine sequences of four heads: 36 blocks, a sixth of the most
    ungrouped = 2 * seen * 4 * 32 * 2
    copies = 2 * (8 * 200) * 2 * 32 * 2
    assert attention.workspace == sums + rows * 4 * 4 + ungrouped + copies


def test_flash_attention_needs_less_where_rows_are_ragged() -> None:
    ragged = MicroBatch(tokens=30_000, prefix=500, rows=64, longest=3000, labels=300)
    ways = [predicted(ragged, on_cpu=False, varlen=varlen) for varlen in (False, True)]
    assert ways[1] < 0.5 * ways[0]


def test_flash_attention_has_no_part_in_padded_rows() -> None:
    padded = replace(BATCH, prefix=0, padded=True)
    assert predicted(padded, varlen=True) == predicted(padded)


@pytest.mark.parametrize(
    "larger",
    [{"tokens": 1100}, {"prefix": 900}, {"rows": 32}],
    ids=str,
)
def test_more_tokens_and_copies_need_more_of_flash_attention(larger: dict[str, int]) -> None:
    assert predicted(replace(BATCH, **larger), varlen=True) > predicted(varlen=True)


def test_every_type_has_a_size() -> None:
    assert set(phases.ITEMSIZE) == set(Precision) - {Precision.auto}
