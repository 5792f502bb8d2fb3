"""Products of plain weights in any type, in place of packed ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class PlainProduct:
    """What a packed product computes, in the type of its weights."""

    def __init__(self, *layers: nn.Linear) -> None:
        self.weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def backward(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight


@pytest.fixture
def plain_product() -> Callable[..., PlainProduct]:
    return PlainProduct
