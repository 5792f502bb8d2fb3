from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exp.model.fused_layer.linears import Adapter, Family

INPUTS, OUTPUTS, ROWS = 10, (6, 4, 8), 7

Plain = Callable[..., Any]


def layers() -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(INPUTS, outputs, bias=False).double() for outputs in OUTPUTS]


def adapter(product: int, start: int, outputs: int, rank: int, scaling: float) -> Adapter:
    torch.manual_seed(rank)
    a = nn.Parameter(torch.randn(rank, INPUTS, dtype=torch.float64))
    b = nn.Parameter(torch.randn(outputs, rank, dtype=torch.float64))
    return Adapter(product, slice(start, start + outputs), a, b, scaling)


def spelled_out(linears: list[nn.Linear], adapters: dict[int, Adapter], x: Tensor) -> list[Tensor]:
    """Each layer by itself, as PEFT defines it."""
    outputs = [linear(x) for linear in linears]
    for index, each in adapters.items():
        outputs[index] = outputs[index] + each.scaling * (x @ each.a.T) @ each.b.T
    return outputs


@pytest.mark.parametrize("scalings", [(2.0, 2.0), (0.5, 3.0)])
def test_a_family_gives_what_its_layers_give_and_their_gradients(
    scalings: tuple[float, float], plain_product: Plain
) -> None:
    first, second, third = linears = layers()
    # The first two as one product, an adapter on its second layer and on the third.
    adapters = {
        1: adapter(0, OUTPUTS[0], OUTPUTS[1], 3, scalings[0]),
        2: adapter(1, 0, OUTPUTS[2], 2, scalings[1]),
    }
    family = Family([plain_product(first, second), plain_product(third)], list(adapters.values()))
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64, requires_grad=True)
    expected = spelled_out(linears, adapters, x)
    slopes = [torch.randn_like(each) for each in expected]
    wanted = torch.autograd.grad(expected, [x, *family.parameters], slopes)
    with torch.no_grad():
        outputs, kept = family.forward(x)
        joint = torch.cat(slopes[:2], dim=1)
        of_x, gradients = family.backward([joint, slopes[2]], kept)
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(expected, 1))
    torch.testing.assert_close([of_x, *gradients], list(wanted))


def test_a_family_without_adapters_keeps_nothing(plain_product: Plain) -> None:
    (first, *_) = layers()
    family = Family([plain_product(first)], [])
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        (output,), kept = family.forward(x)
        of_x, gradients = family.backward([torch.ones_like(output)], kept)
    assert kept.x is None
    assert gradients == []
    torch.testing.assert_close(of_x, torch.ones_like(output) @ first.weight.detach())


def test_the_gradient_of_an_input_that_needs_none_is_not_computed(plain_product: Plain) -> None:
    (first, *_) = layers()
    family = Family([plain_product(first)], [adapter(0, 0, OUTPUTS[0], 2, 1.0)])
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        (output,), kept = family.forward(x)
        of_x, gradients = family.backward([torch.ones_like(output)], kept, needs_x=False)
    assert of_x is None
    assert len(gradients) == 2
