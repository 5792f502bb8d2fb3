from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.model.lora import attach_lora
from exp.model.merge import is_merged_exactly, merge_for_good, merged_for_inference

Tiny = Callable[..., PreTrainedModel]

IDS = torch.arange(12).unsqueeze(0)


def trained(tiny: Tiny, name: str = "llama", dora: bool = False) -> PeftModel:
    config = LoraConfig(r=4, target_modules=["all-linear"], dropout=0.1, dora=dora)
    model = attach_lora(tiny(name), config, seed=0)
    random = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(std=0.1, generator=random)
    return model


@torch.no_grad()
def logits_of(model: PeftModel) -> Tensor:
    logits: Tensor = model(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3", "mistral", "gemma2"])
def test_merged_logits_equal_unmerged_ones(tiny: Tiny, name: str) -> None:
    model = trained(tiny, name).eval()
    expected = logits_of(model)
    with merged_for_inference(model):
        merged = logits_of(model)
    assert not torch.equal(merged, expected)  # two ways of rounding, so something was merged
    assert float((merged - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit(tiny: Tiny, dtype: torch.dtype, fails: bool) -> None:
    model = trained(tiny).to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits_of(model.eval())
    model.train()
    try:
        with merged_for_inference(model):
            assert not all(torch.equal(before[n], t) for n, t in model.state_dict().items())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert torch.equal(logits_of(model.eval()), expected)


def test_a_base_of_16_bits_is_rounded_once(tiny: Tiny) -> None:
    model = trained(tiny)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    layer.base_layer.to(torch.bfloat16)
    update = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    exact = layer.base_layer.weight.double() + layer.scaling["default"] * update
    with merged_for_inference(model):
        merged = layer.base_layer.weight.clone()
    # Half a unit in the last of bf16's eight places.
    assert bool(((merged.double() - exact).abs() <= exact.abs() * 2**-8).all())


def test_the_mode_within_is_eval_and_afterwards_as_before(tiny: Tiny) -> None:
    model = trained(tiny).train()
    with merged_for_inference(model):
        assert not any(module.training for module in model.modules())
        first = logits_of(model)
        assert torch.equal(logits_of(model), first)
    assert all(module.training for module in model.modules())


def test_dora_stays_unmerged_and_says_so(tiny: Tiny) -> None:
    model = trained(tiny, dora=True).eval()
    expected = logits_of(model)
    with merged_for_inference(model):
        assert torch.equal(logits_of(model), expected)
    assert not is_merged_exactly(model)
    assert is_merged_exactly(trained(tiny))


def test_a_model_without_an_adapter_is_only_put_into_eval_mode(tiny: Tiny) -> None:
    base = tiny("llama").train()
    with merged_for_inference(base):
        assert not base.training
    assert base.training
    assert is_merged_exactly(base)


def test_merged_for_good_stays_merged(tiny: Tiny) -> None:
    model = trained(tiny).eval()
    expected = logits_of(model)
    merge_for_good(model)
    merged = logits_of(model)
    assert not torch.equal(merged, expected)
    assert float((merged - expected).abs().max()) <= 1e-4


def test_tied_embeddings_are_left_as_they_are(tiny: Tiny) -> None:
    model = trained(tiny)
    base = model.get_base_model()
    embeddings = base.get_input_embeddings().weight.clone()
    merge_for_good(model)
    assert torch.equal(base.get_input_embeddings().weight, embeddings)
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
