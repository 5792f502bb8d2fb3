"""Frozen linear layers of a CPU model on weights that are laid out for the processor once.

oneDNN reorders a bf16 weight into blocks on every call. The base's weights never change while an
adapter trains, so they are reordered once: for the forward, and transposed for the gradient of the
input. That makes the products of a training step a fifth faster, at the price of two more copies of
the weights; docs/log.md has the figures.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def pack_linears(model: nn.Module) -> int:
    """Give every frozen bf16 linear layer on the CPU a forward over packed weights.

    Returns:
        The number of layers; 0 where torch has no packed products for this machine.
    """
    layers = [module for module in model.modules() if _can_be_packed(module)]
    if not layers or not _works():
        return 0
    for layer in layers:
        layer.forward = types.MethodType(_packed_forward, layer)
    return len(layers)


def _can_be_packed(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype is torch.bfloat16
        and not module.weight.requires_grad
    )


@torch.no_grad()
def _works() -> bool:
    """Try one product, forward and backward, and compare it with the plain one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, generator=generator).bfloat16()
    weight = torch.randn(32, 64, generator=generator).bfloat16()
    try:
        got = _product(x, _pack(weight), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(got.float(), functional.linear(x, weight).float(), rtol=2e-2, atol=2e-2)


class _Packs:
    """The packed forms of one weight, made anew whenever the weight is another one."""

    def __init__(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._forward: Tensor | None = None
        self._backward: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        self._follow(weight)
        if self._forward is None:
            self._forward = _pack(weight)
        return self._forward

    def backward(self, weight: Tensor) -> Tensor:
        self._follow(weight)
        if self._backward is None:
            self._backward = _pack(weight.T.contiguous())
        return self._backward

    def _follow(self, weight: Tensor) -> None:
        """Merging an adapter puts another tensor in the weight's place, or writes into it."""
        identity = (weight.data_ptr(), weight._version)
        if identity != self._identity:
            self._identity, self._forward, self._backward = identity, None, None


def _packed_forward(self: nn.Linear, x: Tensor) -> Tensor:
    weight = self.weight
    if x.dtype is not torch.bfloat16 or weight.dtype is not torch.bfloat16 or not x.numel():
        return functional.linear(x, weight, self.bias)
    packs = self.__dict__.setdefault("_packs", _Packs())
    rows: Tensor = _PackedLinear.apply(
        x.reshape(-1, x.shape[-1]), weight.detach(), self.bias, packs
    )
    # No view of the same shape: what is added onto a view copies its gradient.
    return rows if x.dim() == 2 else rows.view(*x.shape[:-1], -1)


class _PackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, packs: _Packs) -> Tensor:
        ctx.weight, ctx.packs = weight, packs
        return _product(x, packs.forward(weight), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return _product(grad_outputs[0], ctx.packs.backward(ctx.weight), None), None, None, None


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def _product(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product
