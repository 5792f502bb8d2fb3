"""One decoder layer as one function with its gradient written out: norms, attention, MLP, adapters.

A layer that is built of modules takes many small steps of Python and of autograd beside its
products; for 135M parameters and 400 tokens they are three tenths of a training step on two cores.
Here the same numbers are computed by fewer and larger calls; docs/log.md has the figures.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exp.model.fused_elementwise import ACTIVATIONS, rms_norm, rms_norm_backward
from exp.model.fused_layer.attention import Heads, Stream, attend, attend_backward, rotate_
from exp.model.fused_layer.linears import Family


@dataclass(frozen=True, slots=True)
class Norm:
    """An RMSNorm as Llama has it.

    Attributes:
        weight: (hidden,), frozen.
        epsilon: What the mean of squares is raised by.
    """

    weight: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What a decoder layer consists of, in the order in which it computes."""

    attention_norm: Norm
    joint: Family
    heads: Heads
    output: Family
    mlp_norm: Norm
    gate_and_up: Family
    activation: str
    down: Family

    @property
    def families(self) -> tuple[Family, ...]:
        """All linear layers, by the input that they read."""
        return self.joint, self.output, self.gate_and_up, self.down


def run_layer(parts: Parts, x: Tensor, stream: Stream) -> Tensor:
    """Compute a layer's output, of the shape of its input.

    Args:
        parts: The layer's own.
        x: (tokens, hidden).
        stream: How the tokens are laid out.
    """
    parameters = [each for family in parts.families for each in family.parameters]
    result: Tensor = _Layer.apply(x, parts, stream, *parameters)
    return result


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts, stream: Stream, *_: Tensor) -> Tensor:
        heads, norm = parts.heads, parts.attention_norm
        normed, kept_norm = rms_norm(x, norm.weight, norm.epsilon)
        (joint,), kept_joint = parts.joint.forward(normed)
        joint = joint.view(len(x), heads.joint, heads.size)
        rotate_(joint, stream, heads)
        attended, operands = attend(joint, heads, stream)
        (output,), kept_output = parts.output.forward(attended)
        middle = output.add_(x)
        of_attention = (kept_norm, kept_joint, operands, kept_output)

        norm = parts.mlp_norm
        normed, kept_norm = rms_norm(middle, norm.weight, norm.epsilon)
        (gate, up), kept_gated = parts.gate_and_up.forward(normed)
        product = ACTIVATIONS[parts.activation].value(gate).mul_(up)
        (output,), kept_down = parts.down.forward(product)
        of_mlp = (kept_norm, kept_gated, gate, up, kept_down)

        # Not save_for_backward: what the MLP kept goes before the attention's gradient comes.
        ctx.parts, ctx.stream, ctx.kept = parts, stream, [of_attention, of_mlp]
        return output.add_(middle)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.kept:
            raise RuntimeError("a fused layer's gradient can be computed once")
        parts, stream, heads = ctx.parts, ctx.stream, ctx.parts.heads
        gradient, of_mlp = _mlp_backward(parts, grad_outputs[0], ctx.kept.pop())
        kept_norm, kept_joint, operands, kept_output = ctx.kept.pop()
        of_attended, of_output = parts.output.backward([gradient], kept_output)
        assert of_attended is not None
        of_rows = attend_backward(of_attended, operands, heads, stream)
        del operands, kept_output, of_attended
        rotate_(of_rows, stream, heads, back=True)
        of_normed, of_joint = parts.joint.backward(
            [of_rows.view(len(of_rows), -1)], kept_joint, needs_x=ctx.needs_input_grad[0]
        )
        of_x = None
        if of_normed is not None:
            weight = parts.attention_norm.weight
            of_x = rms_norm_backward(of_normed, kept_norm, weight).add_(gradient)
        return of_x, None, None, *of_joint, *of_output, *of_mlp


def _mlp_backward(parts: Parts, gradient: Tensor, kept: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the gradients of the MLP's input, the residual's included, and of its adapters."""
    kept_norm, kept_gated, gate, up, kept_down = kept
    of_product, of_down = parts.down.backward([gradient], kept_down)
    assert of_product is not None
    activation = ACTIVATIONS[parts.activation]
    of_up = activation.value(gate).mul_(of_product)
    of_gate = activation.backward(of_product.mul_(up), gate)
    del kept_down, of_product
    of_normed, of_gated = parts.gate_and_up.backward([of_gate, of_up], kept_gated)
    assert of_normed is not None
    of_middle = rms_norm_backward(of_normed, kept_norm, parts.mlp_norm.weight).add_(gradient)
    return of_middle, [*of_gated, *of_down]
