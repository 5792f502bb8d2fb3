import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.model.adapter_dropout import InputMasks
from exp.model.fused_lora import forget_inputs, fuse_lora, is_fused
from exp.model.lora import attach_lora

Tiny = Callable[..., PreTrainedModel]

ALL = ["all-linear"]


def lora_layer(
    tiny: Tiny, fuse: bool, dtype: torch.dtype = torch.float32, bias: bool = False
) -> nn.Module:
    """One adapted layer of a tiny model, its lora_B not zero."""
    base = tiny("llama", attention_bias=bias).to(dtype)
    model = attach_lora(base, LoraConfig(r=4, target_modules=["q_proj"]), seed=0, fuse=fuse)
    layer: nn.Module = model.get_base_model().model.layers[0].self_attn.q_proj
    random = torch.Generator().manual_seed(1)
    layer.lora_B["default"].weight.data.normal_(generator=random)
    return layer


def run(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, then the gradients of the input and of every trainable parameter."""
    x = x.clone().requires_grad_()
    output = layer(x)
    trainable = [p for p in layer.parameters() if p.requires_grad]
    slope = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad(output, [x, *trainable], slope)]


@pytest.mark.thorough
def test_a_forward_that_broke_off_leaves_nothing_once_it_is_forgotten(tiny: Tiny) -> None:
    model = attach_lora(tiny("llama"), LoraConfig(r=4, target_modules=ALL), seed=0)
    layer = model.get_base_model().model.layers[1]
    seen: list[weakref.ref[Tensor]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(weakref.ref(inputs[0]))

    def fail(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise torch.OutOfMemoryError("out of memory")

    # Between q, which computes the low-rank products of q, k and v, and k, which asks for its own.
    layer.self_attn.k_proj.base_layer.register_forward_pre_hook(fail)
    model.get_base_model().model.layers[0].mlp.down_proj.register_forward_pre_hook(watch)
    with pytest.raises(torch.OutOfMemoryError):
        model(input_ids=torch.arange(6).unsqueeze(0))
    gc.collect()
    assert seen[0]() is not None
    forget_inputs(model)
    gc.collect()
    assert seen[0]() is None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 32), (2, 3, 32), (1, 1, 32)])
def test_the_fused_layer_equals_peft_s(tiny: Tiny, shape: tuple[int, ...], bias: bool) -> None:
    x = torch.randn(shape)
    fused = run(lora_layer(tiny, True, bias=bias), x)
    plain = run(lora_layer(tiny, False, bias=bias), x)
    assert len(fused) == 4
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def test_the_fused_layer_survives_recomputation(tiny: Tiny) -> None:
    layer, x = lora_layer(tiny, True), torch.randn(2, 3, 32)

    def twice(states: Tensor) -> Tensor:
        recomputed: Tensor = checkpoint(layer, states, use_reentrant=False)
        return recomputed

    wrapped = nn.Module()
    wrapped.layer = layer
    wrapped.forward = twice  # type: ignore[method-assign]
    assert all(map(torch.equal, run(wrapped, x), run(layer, x)))


def test_an_input_without_gradient_is_not_touched(tiny: Tiny) -> None:
    layer, x = lora_layer(tiny, True), torch.randn(3, 32)
    before = x.clone()
    layer(x).sum().backward()
    assert x.grad is None
    assert torch.equal(x, before)
    assert layer.lora_A["default"].weight.grad.abs().sum() > 0


def test_a_base_of_16_bits_gives_fp32_gradients_near_the_exact_ones(tiny: Tiny) -> None:
    x = torch.randn(7, 32).bfloat16()
    layer = lora_layer(tiny, True, torch.bfloat16)
    output, grad_x, *grads = run(layer, x)
    exact = lora_layer(tiny, True).double()
    exact.base_layer.weight.data.copy_(layer.base_layer.weight)
    expected, expected_x, *expected_grads = run(exact, x.double())
    assert (output.dtype, grad_x.dtype) == (torch.bfloat16, torch.bfloat16)
    assert {gradient.dtype for gradient in grads} == {torch.float32}
    pairs = zip([output, grad_x, *grads], [expected, expected_x, *expected_grads], strict=True)
    with torch.no_grad():
        errors = [float((f.double() - w).norm() / w.norm()) for f, w in pairs]
    assert max(errors) < 0.02


def dropped(tiny: Tiny, seed: int, training: bool = True) -> Tensor:
    config = LoraConfig(r=4, target_modules=ALL, dropout=0.5)
    model = attach_lora(tiny("llama"), config, seed=0).train(training)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    torch.manual_seed(seed)
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.arange(8).unsqueeze(0)).logits
    return logits


def test_dropout_repeats_with_its_seed_and_is_off_in_eval(tiny: Tiny) -> None:
    assert torch.equal(dropped(tiny, 1), dropped(tiny, 1))
    assert not torch.equal(dropped(tiny, 1), dropped(tiny, 2))
    assert torch.equal(dropped(tiny, 1, training=False), dropped(tiny, 2, training=False))


def test_dropout_acts_on_the_adapter_s_input_alone(tiny: Tiny) -> None:
    base = tiny("llama")
    config = LoraConfig(r=4, target_modules=["q_proj"], dropout=0.5)
    attach_lora(base, config, seed=0).train()
    layer, x = base.model.layers[0].self_attn.q_proj, torch.randn(3, 32)
    assert torch.equal(layer(x), layer.base_layer(x))  # lora_B is zero, so only the base is left
    layer.lora_B["default"].weight.data.normal_()
    torch.manual_seed(0)
    output = layer(x.clone())  # a new input, and so a new mask
    torch.manual_seed(0)
    masks = InputMasks(0.5)
    kept = x * masks.kept(x) * masks.scale
    update = kept @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    expected = layer.base_layer(x) + layer.scaling["default"] * update
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LoraConfig(r=4, target_modules=ALL), 14),
        (LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), 4),
        (LoraConfig(r=4, target_modules=ALL, dora=True), 0),
    ],
)
def test_plain_layers_are_fused_and_others_keep_peft_s_forward(
    tiny: Tiny, config: LoraConfig, expected: int
) -> None:
    model = attach_lora(tiny("llama"), config, seed=0, fuse=False)
    assert fuse_lora(model) == expected
    assert len([module for module in model.modules() if is_fused(module)]) == expected
    assert fuse_lora(model) == 0  # done once


def test_a_disabled_adapter_leaves_the_base(tiny: Tiny) -> None:
    ids = torch.arange(8).unsqueeze(0)
    base_logits = tiny("llama")(input_ids=ids).logits
    model = attach_lora(tiny("llama"), LoraConfig(r=4, target_modules=ALL), seed=0).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    assert not torch.equal(model(input_ids=ids).logits, base_logits)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, base_logits)


def attention_and_mlp(tiny: Tiny, fuse: bool, dropout: float = 0.0) -> PeftModel:
    config = LoraConfig(r=4, target_modules=ALL, dropout=dropout)
    model = attach_lora(tiny("llama"), config, seed=0, fuse=fuse).train().double()
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=random)
    return model


def gradients(model: PeftModel) -> dict[str, Tensor]:
    model(input_ids=torch.arange(24).view(2, 12)).logits.square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_layers_that_read_one_input_share_its_product_exactly(tiny: Tiny) -> None:
    fused, plain = (gradients(attention_and_mlp(tiny, fuse)) for fuse in (True, False))
    assert len(fused) == 28
    for name, gradient in fused.items():
        assert float((gradient - plain[name]).norm() / plain[name].norm()) < 1e-5, name


def test_siblings_fed_with_different_inputs_stay_apart(tiny: Tiny) -> None:
    fused, plain = (
        attention_and_mlp(tiny, fuse).base_model.model.model.layers[0].self_attn
        for fuse in (True, False)
    )
    inputs = torch.randn(3, 5, 32, dtype=torch.float64)
    for names in (("q_proj", "k_proj", "v_proj"), ("v_proj", "q_proj", "q_proj")):
        for name, x in zip(names, inputs, strict=True):
            torch.testing.assert_close(getattr(fused, name)(x), getattr(plain, name)(x))


def test_an_input_that_was_written_over_is_projected_anew(tiny: Tiny) -> None:
    attention = attention_and_mlp(tiny, True).base_model.model.model.layers[0].self_attn
    x = torch.randn(5, 32, dtype=torch.float64)
    attention.q_proj(x)
    x.mul_(2)
    got = attention.k_proj(x)
    assert torch.equal(got, attention.k_proj(x.clone()))


@pytest.mark.thorough
def test_a_copy_of_a_model_has_products_of_its_own(tiny: Tiny) -> None:
    model = attention_and_mlp(tiny, True)
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        if "lora_A" in name:
            parameter.data.zero_()
    ids = torch.arange(8).unsqueeze(0)
    with model.disable_adapter():
        base = model(input_ids=ids).logits
    assert torch.equal(copied(input_ids=ids).logits, base)
    assert not torch.equal(model(input_ids=ids).logits, base)
