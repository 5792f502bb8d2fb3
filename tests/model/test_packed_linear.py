import pytest
import torch
from torch import Tensor, nn

from exp.model import packed_linear
from exp.model.packed_linear import JointProduct, pack_linears


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


@pytest.mark.parametrize("bias", [False, True])
def test_layers_that_read_one_input_are_one_product(bias: bool) -> None:
    torch.manual_seed(0)
    layers = [make_layer(bias=bias), nn.Linear(48, 32, bias=False).bfloat16().requires_grad_(False)]
    x = torch.randn(5, 48).bfloat16()
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    gradient = torch.randn_like(expected)
    wanted = gradient @ torch.cat([layer.weight for layer in layers])
    joint = JointProduct([packed(layer) for layer in layers])
    torch.testing.assert_close(joint.forward(x), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(joint.backward(gradient), wanted, rtol=2e-2, atol=1e-1)
    with torch.no_grad():
        layers[1].weight.mul_(2)
    expected[:, 80:] *= 2
    torch.testing.assert_close(joint.forward(x), expected, rtol=2e-2, atol=2e-2)


def test_packs_of_a_layer_alone_and_of_its_family_are_never_both_kept() -> None:
    layer = packed(make_layer())
    joint = JointProduct([layer])
    x = torch.randn(5, 48).bfloat16()
    layer(x)
    joint.forward(x)
    assert packed_linear._PACKS not in layer.__dict__
    layer(x)
    assert joint._packs._forward is None


@pytest.mark.parametrize("rows", [192, 193, 400, 576, 1000])
def test_a_product_in_parts_is_the_whole_one(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    whole = packed_linear._whole_product

    def seen(part: Tensor, *others: Tensor | None) -> Tensor:
        parts.append(len(part))
        return whole(part, *others)  # type: ignore[arg-type]

    layer, x = packed(make_layer()), torch.randn(rows, 48).bfloat16()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected = layer(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(packed_linear, "_whole_product", seen)
    torch.testing.assert_close(layer(x), expected, rtol=2e-2, atol=2e-2)
    assert sum(parts) == rows
    assert max(parts) <= packed_linear.PART_ROWS
    assert len(parts) == -(-rows // packed_linear.PART_ROWS)
    assert all(part % packed_linear.ROW_MULTIPLE == 0 for part in parts[:-1])
