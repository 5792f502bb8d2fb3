import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from exp.model.fused_elementwise import fuse_elementwise

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def make_model(model_type: str, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **SIZES)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight in (each for each in model.parameters() if each.ndim == 1):
            weight.normal_(std=0.3)  # a start of zeros or ones would hide how it is used
    return model.requires_grad_(False)


def logits_and_gradient(model: PreTrainedModel, embeds: Tensor) -> tuple[Tensor, Tensor]:
    embeds = embeds.clone().requires_grad_()
    logits = model(inputs_embeds=embeds).logits
    logits.float().square().sum().backward()
    assert embeds.grad is not None
    return logits.detach(), embeds.grad


@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_model_gives_the_same_logits_and_gradients(
    model_type: str, dtype: torch.dtype
) -> None:
    plain = make_model(model_type, dtype)
    fused = copy.deepcopy(plain)
    assert fuse_elementwise(fused) > 0
    embeds = torch.randn(2, 9, SIZES["hidden_size"]).to(dtype)
    expected, expected_gradient = logits_and_gradient(plain, embeds)
    got, gradient = logits_and_gradient(fused, embeds)
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    off = (gradient - expected_gradient).float().norm() / expected_gradient.float().norm()
    assert off < tolerance


def test_every_norm_and_mlp_of_a_llama_is_fused() -> None:
    model = make_model("llama", torch.float32)
    assert fuse_elementwise(model) == 2 * 2 + 1 + 2  # norms of two layers, the last one, two MLPs


def test_every_norm_and_mlp_of_a_gemma_is_fused() -> None:
    """Its norms multiply by 1 + weight, in fp32, and its gates are GELUs."""
    model = make_model("gemma3_text", torch.float32)
    assert fuse_elementwise(model) == 2 * (4 + 2) + 1 + 2


def test_norm_that_computes_something_else_is_left_alone() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8), requires_grad=False)
            self.eps = 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() + 0.5

    assert fuse_elementwise(OddRMSNorm()) == 0


def test_norm_with_a_trainable_weight_is_left_alone() -> None:
    model = make_model("llama", torch.float32)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.weight.requires_grad_(True)
    assert fuse_elementwise(model) == 2


def test_mlp_of_an_unknown_class_is_left_alone() -> None:
    class OddMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj = self.up_proj = self.down_proj = nn.Linear(4, 4)
            self.act_fn = nn.SiLU()

    assert fuse_elementwise(OddMLP()) == 0
