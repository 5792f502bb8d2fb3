import pytest
import torch
from torch import Tensor, nn

from exp.model.packed_linear import pack_linears


def make_layer(dtype: torch.dtype = torch.bfloat16, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 80, bias=bias).to(dtype).requires_grad_(False)


def packed(layer: nn.Linear) -> nn.Linear:
    if not pack_linears(layer):
        pytest.skip("this build of torch has no packed products")
    return layer


def output_and_gradient(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    output = layer(x)
    output.float().square().sum().backward()
    assert x.grad is not None
    return output.detach(), x.grad


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (33, 48), (2, 5, 48)])
def test_packed_layer_gives_the_plain_layers_output_and_gradient(
    bias: bool, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape).bfloat16()
    expected = output_and_gradient(make_layer(bias=bias), x)
    got = output_and_gradient(packed(make_layer(bias=bias)), x)
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=2e-2, atol=2e-2)


def test_weight_that_was_written_into_is_packed_anew() -> None:
    layer = packed(make_layer())
    x = torch.randn(3, 48).bfloat16()
    layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(
        layer(x), nn.functional.linear(x, layer.weight), rtol=2e-2, atol=2e-2
    )


def test_weight_that_was_replaced_is_packed_anew() -> None:
    layer = packed(make_layer())
    x = torch.randn(3, 48).bfloat16()
    before = layer(x)
    layer.weight.data = layer.weight.data * -1
    torch.testing.assert_close(layer(x), -before)


def test_output_may_be_written_over_as_the_lora_update_does() -> None:
    layer = packed(make_layer())
    x = torch.randn(3, 48).bfloat16().requires_grad_()
    output = layer(x)
    output.mul_(2)
    output.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_layers_of_other_types_are_left_alone(dtype: torch.dtype) -> None:
    assert pack_linears(make_layer(dtype)) == 0


def test_trainable_layer_is_left_alone() -> None:
    assert pack_linears(make_layer().requires_grad_(True)) == 0
