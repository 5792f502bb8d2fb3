"""The update of a LoRA layer without waste: no input casts, few products, one addition.

PEFT casts each input to the adapter's fp32 and runs the low-rank products there; on a bf16 base
that is most of an adapter's cost. Here the adapter's two small matrices are cast to the input's
type instead, layers that read the same input (q, k and v; gate and up) share one product with all
their `lora_A`, the second product is accumulated into the base layer's output, and the backward
computes just the gradients that somebody needs. Parameters stay PEFT's own, in fp32.
"""

import weakref
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeGuard, cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from exp.model.adapter_dropout import InputMasks

READ_THE_SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names under one parent whose layers most architectures feed with one tensor. A layer that turns
out to get another one is computed on its own."""


def fuse_lora(model: PeftModel) -> int:
    """Give every plain LoRA linear layer of a model the fused forward, quantised bases included.

    Layers with a variant (DoRA and others), a LoRA bias or several adapters keep PEFT's forward, as
    do merged and disabled adapters.

    Returns:
        The number of layers that were fused.
    """
    fused = 0
    masks: dict[float, InputMasks] = {}
    for parent in model.modules():
        plain = {
            name: module
            for name, module in parent.named_children()
            if is_lora_linear(module) and not is_fused(module) and _is_plain(module)
        }
        for family in _families(plain):
            rate = _dropout_rate(family[0])
            shared = masks.setdefault(rate, InputMasks(rate)) if rate else None
            down = _DownProjection(family, shared)
            for module in family:
                module.__class__ = _fused_class(type(module))  # type: ignore[assignment]
                module.__dict__[_DOWN] = down
                fused += 1
    return fused


def is_lora_linear(module: nn.Module) -> TypeGuard[PeftLinear]:
    """Tell whether a module is PEFT's LoRA layer around a linear layer, plain or bitsandbytes'.

    PEFT's classes for the latter have the same parts. They are known by their module's name, since
    importing that imports bitsandbytes.
    """
    return isinstance(module, PeftLinear) or (
        isinstance(module, LoraLayer)
        and any(base.__module__ == "peft.tuners.lora.bnb" for base in type(module).__mro__)
    )


def is_fused(module: nn.Module) -> bool:
    """Tell whether a module has the forward of this file."""
    return _DOWN in module.__dict__


def drops_inputs(module: nn.Module) -> bool:
    """Tell whether a fused layer has dropout on its adapter's input."""
    down: _DownProjection = module.__dict__[_DOWN]
    return down.drops


def forget_inputs(model: nn.Module) -> None:
    """Drop what a forward that broke off had ready for layers that it did not reach.

    It would hold the graph of that forward, and with it all its activations.
    """
    for module in filter(is_fused, model.modules()):
        module.__dict__[_DOWN].clear()


def _is_plain(module: PeftLinear) -> bool:
    names = list(module.lora_A)
    return (
        len(names) == 1
        and not module.lora_variant
        and not module.lora_bias[names[0]]
        and module.lora_A[names[0]].bias is None
    )


def _families(siblings: dict[str, PeftLinear]) -> Iterable[list[PeftLinear]]:
    """Part the layers of one parent by the input that they read."""
    rest = dict(siblings)
    for names in READ_THE_SAME_INPUT:
        found = [rest[name] for name in names if name in rest]
        if len({(each.in_features, _dropout_rate(each)) for each in found}) == 1:
            yield found
            rest = {name: module for name, module in rest.items() if name not in names}
    yield from ([module] for module in rest.values())


def _dropout_rate(module: PeftLinear) -> float:
    (dropout,) = module.lora_dropout.values()
    return dropout.p if isinstance(dropout, nn.Dropout) else 0.0


_DOWN = "_down_projection"


@cache
def _fused_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Derive a class with the fused forward from one of PEFT's.

    The class of a layer is swapped, and no forward is put into the single layer, so that
    torch.compile sees the same code in every decoder layer.
    """

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs:
            output: Tensor = kind.forward(self, x, *args, **kwargs)
            return output
        # Flat rows: the product of more dimensions may be a view, which the adapter cannot be added
        # onto (4-bit layers with a bias), or only by copying its gradient.
        base = self.base_layer(x.reshape(-1, x.shape[-1]))
        low, factor = self.__dict__[_DOWN](self, x)
        (name,) = self.lora_B
        scaling = self.scaling[name] * factor
        updated: Tensor = _Up.apply(base, low, self.lora_B[name].weight, scaling)
        return updated.view(*x.shape[:-1], -1)

    return type(f"Fused{kind.__name__}", (kind,), {"forward": forward, "__module__": __name__})


class _DownProjection:
    """x A^T for all layers that read x: computed when the first asks, handed out as each asks."""

    def __init__(self, layers: list[PeftLinear], masks: InputMasks | None) -> None:
        self._projections = [next(iter(layer.lora_A.values())) for layer in layers]
        self._masks = masks
        self._input: weakref.ref[Tensor] | None = None
        self._state: tuple[int, bool] | None = None
        self._lows: dict[int, Tensor] = {}

    def __call__(self, layer: PeftLinear, x: Tensor) -> tuple[Tensor, float]:
        """Project x down with one layer's lora_A.

        Returns:
            (rows, r), and the factor that makes up for dropped inputs.
        """
        drops = self._masks is not None and layer.training
        factor = self._masks.scale if self._masks is not None and drops else 1.0
        (own,) = layer.lora_A.values()
        place = self._projections.index(own)
        if torch.compiler.is_compiling() or len(self._projections) == 1:
            return self._project(x, [own], drops), factor
        state = (0 if x.is_inference() else x._version, torch.is_grad_enabled())
        known = self._input is not None and self._input() is x and self._state == state
        if not known or place not in self._lows:
            lows = self._project(x, self._projections, drops)
            sizes = [int(each.out_features) for each in self._projections]  # type: ignore[arg-type]
            self._lows = dict(enumerate(lows.split(sizes, dim=1)))
            self._input, self._state = weakref.ref(x), state
        return self._lows.pop(place), factor

    @property
    def drops(self) -> bool:
        """Whether inputs are dropped in training."""
        return self._masks is not None

    def clear(self) -> None:
        """Forget the input and what was computed of it."""
        self._input, self._state, self._lows = None, None, {}

    def _project(self, x: Tensor, layers: list[nn.Module], drops: bool) -> Tensor:
        weights = [cast(Tensor, layer.weight) for layer in layers]
        stacked = (weights[0] if len(weights) == 1 else torch.cat(weights)).to(x.dtype)
        kept = self._masks.kept(x) if self._masks is not None and drops else None
        low: Tensor = _Down.apply(x, kept, stacked)
        return low


class _Down(torch.autograd.Function):
    """dropout(x) A^T over flattened rows; what was dropped is not kept, but dropped again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor | None, a: Tensor) -> Tensor:
        ctx.save_for_backward(x, kept, a)
        return _dropped(x, kept) @ a.T

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, a = ctx.saved_tensors
        gradient = grad_outputs[0]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (gradient @ a).view_as(x)
            if kept is not None:
                grad_x.mul_(kept)
        return grad_x, None, gradient.T @ _dropped(x, kept)


class _Up(torch.autograd.Function):
    """base + scaling * low B^T over flat rows, written over `base`."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, low: Tensor, b: Tensor, scaling: float) -> Tensor:
        ctx.parameter_dtype, b = b.dtype, b.to(low.dtype)
        ctx.mark_dirty(base)
        base.addmm_(low, b.T, alpha=scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(low, b)
        return base

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        low, b = ctx.saved_tensors
        gradient = grad_outputs[0]
        grad_low = (gradient @ b).mul_(ctx.scaling)
        grad_b = (gradient.T @ low).mul_(ctx.scaling)
        return gradient, grad_low, grad_b.to(ctx.parameter_dtype), None


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    rows = x if kept is None else x * kept
    return rows.reshape(-1, x.shape[-1])
