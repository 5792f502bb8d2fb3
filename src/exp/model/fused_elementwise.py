"""Norms and gated activations that keep less for their backward and pass memory fewer times.

transformers writes RMSNorm and the gated MLP as chains of small operations; each keeps its input,
some in fp32. On a CPU, and wherever no compiler fuses them, that is a large part of a step's time
and memory outside the matrix products. The functions here compute the same numbers and keep what
the gradient needs. They replace only what a probe finds to be equal.
"""

import types
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def fuse_elementwise(model: nn.Module) -> int:
    """Replace the forwards of RMSNorms and SiLU-gated MLPs, where the result is the same.

    Returns:
        The number of modules whose forward was replaced.
    """
    fused = 0
    for module in model.modules():
        if _is_norm(module) and _agrees(module, _fused_norm, cast(Tensor, module.weight).shape[0]):
            module.forward = types.MethodType(_fused_norm, module)
            fused += 1
        elif _is_gated_mlp(module):
            module.forward = types.MethodType(_fused_mlp, module)
            fused += 1
    return fused


def _is_norm(module: nn.Module) -> bool:
    return bool(
        type(module).__name__.endswith("RMSNorm")
        and isinstance(getattr(module, "weight", None), nn.Parameter)
        and module.weight.ndim == 1
        and not module.weight.is_meta
        and not module.weight.requires_grad
        and isinstance(getattr(module, "variance_epsilon", None), float)
    )


def _is_gated_mlp(module: nn.Module) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj")
    if not all(isinstance(getattr(module, part, None), nn.Module) for part in parts):
        return False
    activation = getattr(module, "act_fn", None)
    # Exactly the three projections and the activation: nothing else that a forward could use.
    children = {name for name, _ in module.named_children()}
    return (
        (isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation")
        and children <= {*parts, "act_fn"}
        and type(module).__name__ in GATED_MLPS
    )


GATED_MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
"""Classes whose forward was read: down(act(gate(x)) * up(x))."""


@torch.no_grad()
def _agrees(module: nn.Module, candidate: Any, width: int) -> bool:
    """Compare a module with its candidate on one random input."""
    generator = torch.Generator().manual_seed(0)
    weight: Tensor = module.weight  # type: ignore[assignment]
    x = torch.randn(4, width, generator=generator).to(weight.device, weight.dtype)
    return torch.equal(module(x), candidate(module, x))


def _fused_norm(self: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = _RmsNorm.apply(x, self.weight, self.variance_epsilon)
    return normed


def _fused_mlp(self: nn.Module, x: Tensor) -> Tensor:
    gated = _SiluGate.apply(self.gate_proj(x), self.up_proj(x))  # type: ignore[operator]
    projected: Tensor = self.down_proj(gated)  # type: ignore[operator]
    return projected


class _RmsNorm(torch.autograd.Function):
    """weight * x / rms(x), rounded where transformers rounds. The weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        normed = (wide * scale).to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        return weight * normed

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        gradient = (grad_outputs[0] * weight).float()
        wide = normed.float()
        along = (gradient * wide).mean(-1, keepdim=True)
        return gradient.addcmul_(wide, along, value=-1).mul_(scale).to(normed.dtype), None, None


class _SiluGate(torch.autograd.Function):
    """silu(gate) * up, keeping its two inputs only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        gradient = grad_outputs[0]
        grad_up = functional.silu(gate).mul_(gradient)
        grad_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return grad_gate, grad_up
