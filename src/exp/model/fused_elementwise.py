"""Norms and gated activations that keep less for their backward and pass memory fewer times.

transformers writes RMSNorm and the gated MLP as chains of small operations; each keeps its input,
some in fp32. On a CPU, and wherever no compiler fuses them, that is a large part of a step's time
and memory outside the matrix products. The functions here compute the same numbers and keep what
the gradient needs. They replace only what a probe finds to be equal.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

GATED_MLPS = (
    *("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"),
    *("GemmaMLP", "Gemma2MLP", "Gemma3MLP"),
)
"""Classes whose forward was read: down(act(gate(x)) * up(x))."""


@dataclass(frozen=True, slots=True)
class _Activation:
    """A gate's activation.

    Attributes:
        classes: What transformers calls the modules that compute it.
        value: Of the gate.
        backward: (gradient, gate) -> the gate's gradient.
    """

    classes: tuple[str, ...]
    value: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _gelu_tanh(gate: Tensor) -> Tensor:
    return functional.gelu(gate, approximate="tanh")


def _gelu_tanh_backward(gradient: Tensor, gate: Tensor) -> Tensor:
    back: Tensor = torch.ops.aten.gelu_backward(gradient, gate, approximate="tanh")
    return back


ACTIVATIONS: Mapping[str, _Activation] = {
    "silu": _Activation(
        ("SiLU", "SiLUActivation"), functional.silu, torch.ops.aten.silu_backward.default
    ),
    "gelu_tanh": _Activation(("GELUTanh", "PytorchGELUTanh"), _gelu_tanh, _gelu_tanh_backward),
}


def fuse_elementwise(model: nn.Module) -> int:
    """Replace the forwards of RMSNorms and gated MLPs, where the result is the same.

    Returns:
        The number of modules whose forward was replaced.
    """
    fused = 0
    for module in model.modules():
        forward = _norm_forward(module) or _mlp_forward(module)
        if forward is not None:
            module.forward = types.MethodType(forward, module)
            fused += 1
    return fused


def _norm_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """Choose the forward that gives what an RMSNorm gives; None if it is none, or of its own."""
    if not _is_norm(module):
        return None
    width = cast(Tensor, module.weight).shape[0]
    return next((each for each in (_norm, _norm_around_one) if _agrees(module, each, width)), None)


def _is_norm(module: nn.Module) -> bool:
    return bool(
        type(module).__name__.endswith("RMSNorm")
        and isinstance(getattr(module, "weight", None), nn.Parameter)
        and module.weight.ndim == 1
        and not module.weight.is_meta
        and not module.weight.requires_grad
        and _epsilon(module) is not None
    )


def _epsilon(norm: nn.Module) -> float | None:
    """What the mean of squares is raised by; Llama and Gemma name it differently."""
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found if isinstance(found, float) else None


def is_plain_norm(module: nn.Module) -> bool:
    """Tell whether a module has the forward of `rms_norm`."""
    return getattr(module.forward, "__func__", None) is _norm


def _mlp_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """Choose the forward of a gated MLP; None if it is none that is known."""
    activation = activation_of(module)
    return None if activation is None else _MLPS[activation]


def activation_of(module: nn.Module) -> str | None:
    """Name the activation of a gated MLP; None if it is none that is known."""
    parts = ("gate_proj", "up_proj", "down_proj")
    if type(module).__name__ not in GATED_MLPS:
        return None
    if not all(isinstance(getattr(module, part, None), nn.Module) for part in parts):
        return None
    # Exactly the three projections and the activation: nothing else that a forward could use.
    if not {name for name, _ in module.named_children()} <= {*parts, "act_fn"}:
        return None
    kind = type(getattr(module, "act_fn", None)).__name__
    return next((name for name, each in ACTIVATIONS.items() if kind in each.classes), None)


@torch.no_grad()
def _agrees(module: nn.Module, candidate: Any, width: int) -> bool:
    """Compare a module with its candidate on one random input."""
    generator = torch.Generator().manual_seed(0)
    weight: Tensor = module.weight  # type: ignore[assignment]
    x = torch.randn(4, width, generator=generator).to(weight.device, weight.dtype)
    return torch.equal(module(x), candidate(module, x))


def _norm(self: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = _RmsNorm.apply(x, self.weight, _epsilon(self))
    return normed


def _norm_around_one(self: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = _RmsNormAroundOne.apply(x, self.weight, _epsilon(self))
    return normed


def _silu_mlp(self: nn.Module, x: Tensor) -> Tensor:
    return _gated(self, x, "silu")


def _gelu_tanh_mlp(self: nn.Module, x: Tensor) -> Tensor:
    return _gated(self, x, "gelu_tanh")


_MLPS: Mapping[str, Callable[..., Tensor]] = {"silu": _silu_mlp, "gelu_tanh": _gelu_tanh_mlp}


def _gated(mlp: Any, x: Tensor, activation: str) -> Tensor:
    projected: Tensor = mlp.down_proj(_Gate.apply(mlp.gate_proj(x), mlp.up_proj(x), activation))
    return projected


class _RmsNorm(torch.autograd.Function):
    """`rms_norm` for autograd. The weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        result, kept = rms_norm(x, weight, epsilon)
        ctx.save_for_backward(*kept, weight)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        normed, scale, weight = ctx.saved_tensors
        return rms_norm_backward(grad_outputs[0], (normed, scale), weight), None, None


Normed = tuple[Tensor, Tensor]
"""x / rms(x), of the type of x, and 1 / rms(x) of every row, in fp32."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Normed]:
    """Compute weight * x / rms(x), rounded where transformers rounds for Llama.

    Returns:
        The result, and what `rms_norm_backward` needs.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    normed = (wide * scale).to(x.dtype)
    return weight * normed, (normed, scale)


def rms_norm_backward(gradient: Tensor, kept: Normed, weight: Tensor) -> Tensor:
    """Return the gradient of what was normed."""
    normed, scale = kept
    wide = (gradient * weight).float()
    return _norm_gradient(wide, normed.float(), scale).to(normed.dtype)


class _RmsNormAroundOne(torch.autograd.Function):
    """(1 + weight) * x / rms(x) in fp32 up to its result, as Gemma has it. The weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, scale, weight)
        return (wide * scale * (1.0 + weight.float())).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, weight = ctx.saved_tensors
        gradient = grad_outputs[0] * (1.0 + weight.float())
        return _norm_gradient(gradient, x * scale, scale).to(x.dtype), None, None


def _norm_gradient(gradient: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """The gradient of x, written over that of its normed values; all in fp32."""
    along = (gradient * normed).mean(-1, keepdim=True)
    return gradient.addcmul_(normed, along, value=-1).mul_(scale)


class _Gate(torch.autograd.Function):
    """activation(gate) * up, keeping its two inputs only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return ACTIVATIONS[activation].value(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        gradient, activation = grad_outputs[0], ACTIVATIONS[ctx.activation]
        grad_up = activation.value(gate).mul_(gradient)
        return activation.backward(gradient * up, gate), grad_up, None
