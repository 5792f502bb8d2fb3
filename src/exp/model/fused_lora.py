"""The update of a LoRA layer without waste: no input casts, two small products, one addition.

PEFT casts each input to the adapter's fp32 and runs the low-rank products there; on a bf16 base
that is most of an adapter's cost. Here the adapter's two small matrices are cast to the input's
type instead, the second product is accumulated into the base layer's output, and the backward
computes just the gradients that somebody needs. Parameters stay PEFT's own, in fp32.
"""

import types
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from exp.model.adapter_dropout import InputMasks


def fuse_lora(model: PeftModel) -> int:
    """Give every plain LoRA linear layer of a model the fused forward.

    Layers with a variant (DoRA and others), a LoRA bias or several adapters keep PEFT's forward, as
    do merged and disabled adapters.

    Returns:
        The number of layers that were fused.
    """
    fused = 0
    masks: dict[float, InputMasks] = {}
    for module in model.modules():
        if isinstance(module, PeftLinear) and _is_plain(module):
            (dropout,) = module.lora_dropout.values()
            rate = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
            shared = masks.setdefault(rate, InputMasks(rate)) if rate else None
            forward = types.MethodType(partial(_fused_forward, masks=shared), module)
            module.forward = forward  # type: ignore[method-assign]
            fused += 1
    return fused


def _is_plain(module: PeftLinear) -> bool:
    names = list(module.lora_A)
    return (
        len(names) == 1
        and not module.lora_variant
        and not module.lora_bias[names[0]]
        and module.lora_A[names[0]].bias is None
    )


def _fused_forward(
    self: PeftLinear, x: Tensor, *args: Any, masks: InputMasks | None, **kwargs: Any
) -> Tensor:
    if self.disable_adapters or self.merged or args or kwargs:
        output: Tensor = type(self).forward(self, x, *args, **kwargs)
        return output
    (name,) = self.lora_A
    drops = masks is not None and self.training
    updated: Tensor = _AddUpdate.apply(
        self.base_layer(x),
        x,
        masks.kept(x) if masks is not None and drops else None,
        masks.scale if masks is not None and drops else 1.0,
        self.lora_A[name].weight,
        self.lora_B[name].weight,
        self.scaling[name],
    )
    return updated


class _AddUpdate(torch.autograd.Function):
    """base + scaling * (dropout(x) A^T) B^T, written over `base`."""

    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        x: Tensor,
        kept: Tensor | None,
        kept_scale: float,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = _dropped(x, kept) @ a.T
        ctx.mark_dirty(base)
        # The scale of kept inputs is applied to the few numbers behind the first product.
        scaling = scaling * kept_scale
        base.view(-1, base.shape[-1]).addmm_(low, b.T, alpha=scaling)
        ctx.scaling = scaling
        ctx.save_for_backward(x, kept, a, b, low)
        return base

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, a, b, low = ctx.saved_tensors
        gradient = grad_outputs[0]
        rows = gradient.reshape(-1, gradient.shape[-1])
        grad_low = (rows @ b).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = (grad_low @ a).view_as(x)
            if kept is not None:
                grad_x.mul_(kept)
        grad_a = grad_low.T @ _dropped(x, kept)
        grad_b = (rows.T @ low).mul_(ctx.scaling)
        # The parameters are fp32; autograd requires their gradients to be so, too.
        return gradient, grad_x, None, None, grad_a.float(), grad_b.float(), None


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    rows = x if kept is None else x * kept
    return rows.reshape(-1, x.shape[-1])
