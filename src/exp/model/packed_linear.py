"""Frozen linear layers of a CPU model on weights that are laid out for the processor once.

oneDNN reorders a bf16 weight into blocks on every call. The base's weights never change while an
adapter trains, so they are reordered once: for the forward, and transposed for the gradient of the
input. That makes the products of a training step a fifth faster, at the price of two more copies of
the weights; docs/log.md has the figures.
"""

import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROW_MULTIPLE = 16
"""Rows of a product come in tiles of as many: 376 rows were seen to take as long as 460."""

NARROW_OUTPUTS, PART_ROWS = 768, 192
"""oneDNN computes products of few outputs and many rows by one of two threads; in parts of at most
so many rows by both, up to twice as fast. With more threads nothing was measured."""


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


def is_packed(layer: nn.Module) -> bool:
    """Tell whether a layer has the forward over packed weights."""
    return getattr(layer.forward, "__func__", None) is _packed_forward


class JointProduct:
    """The products of packed layers that read one input, as one, without autograd.

    Weights are packed once: whichever computes, this or the layers by themselves, the other's packs
    are dropped.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._layers, self._packs = tuple(layers), _Packs()
        biases = [layer.bias for layer in layers]
        self._has_bias = any(bias is not None for bias in biases)
        for layer in layers:
            layer.__dict__[_JOINT] = self

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all layers side by side, (rows, outputs), of (rows, inputs)."""
        bias = torch.cat([_bias(layer) for layer in self._layers]) if self._has_bias else None
        return _product(x, self._packs.forward(*self._weights()), bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input."""
        return _product(gradient, self._packs.backward(*self._weights()), None)

    def drop(self) -> None:
        """Forget the packed weights; they are made anew when they are needed."""
        self._packs = _Packs()

    def _weights(self) -> list[Tensor]:
        for layer in self._layers:
            layer.__dict__.pop(_PACKS, None)
        return [layer.weight.detach() for layer in self._layers]


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias


_PACKS, _JOINT = "_packs", "_joint_product"


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
    """The packed forms of weights of one width, stacked; made anew whenever one is another."""

    def __init__(self) -> None:
        self._identity: tuple[tuple[int, int], ...] | None = None
        self._forward: Tensor | None = None
        self._backward: Tensor | None = None

    def forward(self, *weights: Tensor) -> Tensor:
        self._follow(weights)
        if self._forward is None:
            self._forward = _pack(_stacked(weights))
        return self._forward

    def backward(self, *weights: Tensor) -> Tensor:
        self._follow(weights)
        if self._backward is None:
            self._backward = _pack(_stacked(weights).T.contiguous())
        return self._backward

    def _follow(self, weights: Sequence[Tensor]) -> None:
        """Merging an adapter puts another tensor in the weight's place, or writes into it."""
        identity = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if identity != self._identity:
            self._identity, self._forward, self._backward = identity, None, None


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


def _packed_forward(self: nn.Linear, x: Tensor) -> Tensor:
    weight = self.weight
    if x.dtype is not torch.bfloat16 or weight.dtype is not torch.bfloat16 or not x.numel():
        return functional.linear(x, weight, self.bias)
    if _JOINT in self.__dict__:
        self.__dict__[_JOINT].drop()
    packs = self.__dict__.setdefault(_PACKS, _Packs())
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
    narrow = packed.shape[0] <= NARROW_OUTPUTS and len(rows) > PART_ROWS
    if narrow and torch.get_num_threads() == 2:
        size = _part_rows(len(rows))
        return torch.cat([_whole_product(part, packed, bias) for part in rows.split(size)])
    return _whole_product(rows, packed, bias)


def _part_rows(rows: int) -> int:
    """Rows of each part, so that all are about as large."""
    parts = -(-rows // PART_ROWS)
    return -(-rows // (parts * ROW_MULTIPLE)) * ROW_MULTIPLE


def _whole_product(rows: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product
