"""Linear layers that read one input: the frozen base's products, and their adapters' updates.

A decoder layer has four such families: queries, keys and values; the attention's output; gate and
up; down. What they read is projected down once for all adapters of a family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Product(Protocol):
    """The frozen weights of layers that read one input, stacked; `JointProduct` is one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, outputs of all layers) of (rows, inputs)."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input."""
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA on one layer of a family.

    Attributes:
        product: Index of the product that the layer is part of.
        place: Of the layer's outputs in those of the product.
        a: (r, inputs) parameter.
        b: (outputs, r) parameter.
        scaling: Factor of the update.
    """

    product: int
    place: slice
    a: nn.Parameter
    b: nn.Parameter
    scaling: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What the gradient of a family needs of its forward.

    Attributes:
        x: (rows, inputs); None without adapters.
        low: (rows, all ranks) what the adapters project down to, scaled.
        a: (all ranks, inputs) in the type of the base.
        b: (outputs, r) of each adapter, likewise.
    """

    x: Tensor | None
    low: Tensor | None = None
    a: Tensor | None = None
    b: tuple[Tensor, ...] = ()


class Family:
    """Layers that read one input.

    Attributes:
        parameters: Of the adapters: all `a`, then all `b`.
    """

    def __init__(self, products: Sequence[Product], adapters: Sequence[Adapter]) -> None:
        self._products, self._adapters = tuple(products), tuple(adapters)
        self.parameters = (*(each.a for each in adapters), *(each.b for each in adapters))
        self._ranks = [len(each.a) for each in adapters]
        self._scalings = {each.scaling for each in adapters}

    def forward(self, x: Tensor) -> tuple[list[Tensor], Kept]:
        """Compute the outputs of each product, (rows, outputs), of (rows, inputs)."""
        outputs = [product.forward(x) for product in self._products]
        if not self._adapters:
            return outputs, Kept(None)
        a = torch.cat([each.a for each in self._adapters]).to(x.dtype)
        b = tuple(each.b.to(x.dtype) for each in self._adapters)
        low = self._scaled(x @ a.T)
        for adapter, part, up in zip(self._adapters, low.split(self._ranks, 1), b, strict=True):
            outputs[adapter.product][:, adapter.place].addmm_(part, up.T)
        return outputs, Kept(x, low, a, b)

    def backward(
        self, gradients: Sequence[Tensor], kept: Kept, needs_x: bool = True
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Return the gradients of the input, if it is needed, and of `parameters`.

        All are of the type of the base; autograd casts them to that of the parameters.

        Args:
            gradients: Of the outputs of each product.
            kept: What `forward` handed out.
            needs_x: Whether the input's is needed.
        """
        of_x = None
        if needs_x:
            pairs = zip(self._products, gradients, strict=True)
            of_x, *others = [product.backward(gradient) for product, gradient in pairs]
            for other in others:
                of_x.add_(other)
        if kept.x is None or kept.low is None or kept.a is None:
            return of_x, []
        of_low, of_b = torch.empty_like(kept.low), []
        lows, of_lows = kept.low.split(self._ranks, 1), of_low.split(self._ranks, 1)
        for adapter, b, low, of_own in zip(self._adapters, kept.b, lows, of_lows, strict=True):
            gradient = gradients[adapter.product][:, adapter.place]
            of_own.copy_(gradient @ b)
            of_b.append(gradient.T @ low)
        of_low = self._scaled(of_low)
        if of_x is not None:
            of_x.addmm_(of_low, kept.a)
        return of_x, [*(of_low.T @ kept.x).split(self._ranks), *of_b]

    def _scaled(self, low: Tensor) -> Tensor:
        """Scale what belongs to each adapter, in place."""
        if len(self._scalings) == 1:
            return low.mul_(self._adapters[0].scaling)
        for adapter, part in zip(self._adapters, low.split(self._ranks, 1), strict=True):
            part.mul_(adapter.scaling)
        return low
