from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from exp.config.schema import Layout, LoraConfig, LossOn
from exp.data.batch import Batch, Segments, collate
from exp.model.attention import STREAM
from exp.model.fused_elementwise import fuse_elementwise
from exp.model.fused_layer.attention import Heads, Streams
from exp.model.fused_layer.function import Norm, Parts, run_layer
from exp.model.fused_layer.linears import Adapter, Family
from exp.model.lora import attach_lora
from exp.records import Rendered

Tiny = Callable[..., PreTrainedModel]


def batch() -> Batch:
    head = tuple(range(20))
    rows = [Rendered((*head, 30 + i), tuple(range(40, 44 + 3 * i))) for i in range(3)]
    return collate(rows, ["a", "b", "c"], Layout.shared_prefix, LossOn.completion)


def adapted_layer(tiny: Tiny, name: str) -> tuple[Any, Any]:
    """The first layer of a tiny model in fp32 with adapters that change something, and its body."""
    model = tiny(name)
    model.set_attn_implementation(STREAM)
    adapted = attach_lora(model, LoraConfig(r=4, target_modules=["all-linear"]), 0, fuse=False)
    random = torch.Generator().manual_seed(1)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(generator=random)
    body: Any = model.model
    return body.layers[0], body


def family(plain_product: Callable[..., Any], *linears: Any) -> Family:
    """Each layer as a product of its own, so that places are trivial."""
    adapters = []
    for index, linear in enumerate(linears):
        a, b = linear.lora_A["default"].weight, linear.lora_B["default"].weight
        place = slice(0, linear.out_features)
        adapters.append(Adapter(index, place, a, b, linear.scaling["default"]))
    return Family([plain_product(linear.base_layer) for linear in linears], adapters)


def joint(plain_product: Callable[..., Any], *linears: Any) -> Family:
    """All layers as one product."""
    adapters, start = [], 0
    for linear in linears:
        a, b = linear.lora_A["default"].weight, linear.lora_B["default"].weight
        place = slice(start, start + linear.out_features)
        adapters.append(Adapter(0, place, a, b, linear.scaling["default"]))
        start = place.stop
    return Family([plain_product(*(linear.base_layer for linear in linears))], adapters)


def parts_of(layer: Any, plain_product: Callable[..., Any]) -> Parts:
    attention, mlp = layer.self_attn, layer.mlp
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    return Parts(
        Norm(first.weight, first.variance_epsilon),
        joint(plain_product, attention.q_proj, attention.k_proj, attention.v_proj),
        Heads(4, 2, attention.head_dim, attention.scaling),
        family(plain_product, attention.o_proj),
        Norm(second.weight, second.variance_epsilon),
        family(plain_product, mlp.gate_proj, mlp.up_proj),
        "silu",
        family(plain_product, mlp.down_proj),
    )


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_output_and_every_gradient_are_those_of_the_layer_of_modules(
    name: str, tiny: Tiny, plain_product: Callable[..., Any]
) -> None:
    layer, body = adapted_layer(tiny, name)
    made = batch()
    segments = made.segments
    assert isinstance(segments, Segments)
    x = torch.randn(1, made.input_ids.shape[1], 32, requires_grad=True)
    positions = body.rotary_emb(x, made.position_ids)
    expected: Tensor = layer(x, position_embeddings=positions, segments=segments)
    parameters = [each for each in layer.parameters() if each.requires_grad]
    slope = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, *parameters], slope)

    parts = parts_of(layer, plain_product)
    found = run_layer(parts, x[0], Streams()(segments, positions, parts.heads)).unsqueeze(0)
    gradients = torch.autograd.grad(found, [x, *parameters], slope)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4 * float(other.norm()))


def test_an_input_without_gradient_gets_none_and_nothing_is_kept_for_a_second_pass(
    tiny: Tiny, plain_product: Callable[..., Any]
) -> None:
    layer, body = adapted_layer(tiny, "llama")
    fuse_elementwise(nn.ModuleList([layer]))
    made = batch()
    assert made.segments is not None
    x = torch.randn(1, made.input_ids.shape[1], 32)
    positions = body.rotary_emb(x, made.position_ids)
    parts = parts_of(layer, plain_product)
    total = run_layer(parts, x[0], Streams()(made.segments, positions, parts.heads)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()
    assert x.grad is None
    assert all(each.grad is not None for each in layer.parameters() if each.requires_grad)
