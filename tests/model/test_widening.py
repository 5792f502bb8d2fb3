"""A model of 16-bit weights, computed in fp32: as its fp32 copy would, and left as it was."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.model import widening
from exp.model.lora import attach_lora
from exp.model.packed_linear import pack_linears
from exp.model.widening import computing_in_fp32

Tiny = Callable[..., Any]
IDS = torch.arange(12).unsqueeze(0)


def states(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.base_model(input_ids=IDS, use_cache=False).last_hidden_state
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "granite"])
def test_hidden_states_are_those_of_a_copy_in_fp32(
    tiny: Tiny, name: str, dtype: torch.dtype
) -> None:
    model = tiny(name).to(dtype)
    copy = tiny(name).to(dtype).float()
    with computing_in_fp32(model):
        found = states(model)
    expected = states(copy)
    assert found.dtype is torch.float32
    error = (found - expected).norm() / expected.norm()
    assert error < 1e-5
    assert (states(model).float() - expected).norm() / expected.norm() > 1e-4


def test_it_holds_for_packed_weights_below_an_adapter(tiny: Tiny) -> None:
    base = tiny("llama").to(torch.bfloat16)
    pack_linears(base)
    adapted = attach_lora(base, LoraConfig(r=4, target_modules=["all-linear"]), seed=0)
    with computing_in_fp32(adapted):
        found = states(base)
    expected = states(tiny("llama").to(torch.bfloat16).float())
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_weights_and_settings_are_left_as_they_were(tiny: Tiny) -> None:
    model = tiny("llama").to(torch.bfloat16)
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    expected = states(model)
    torch.set_float32_matmul_precision("high")
    try:
        with computing_in_fp32(model):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert torch.equal(states(model), expected)


def test_no_more_than_one_weight_is_wide_at_a_time(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama").to(torch.bfloat16)
    widened, copies, most = widening._widened, weakref.WeakSet[torch.Tensor](), 0

    def watching(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal most
        wide = widened(tensor)
        if wide is not tensor and wide.ndim == 2:
            copies.add(wide)
            most = max(most, len(copies))
        return wide

    monkeypatch.setattr(widening, "_widened", watching)
    with computing_in_fp32(model):
        states(model)
    assert most == 1
    assert len(copies) == 0


def test_what_is_written_into_16_bits_arrives_there(tiny: Tiny) -> None:
    wide = torch.full((3,), 2.5)
    with computing_in_fp32(tiny("llama")):
        added, copied, placed = (torch.zeros(3, dtype=torch.bfloat16) for _ in range(3))
        added.add_(wide)
        copied.copy_(wide)
        placed[:] = wide
    for written in (added, copied, placed):
        assert written.dtype is torch.bfloat16
        assert written.tolist() == [2.5] * 3
