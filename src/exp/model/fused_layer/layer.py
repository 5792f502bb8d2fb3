"""Give decoder layers that train on a CPU the forward of `function.py`, where it is theirs."""

import logging
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from exp.data.batch import Segments
from exp.model.attention import MATERIALISED_SCORES_BYTES, UNSERVED_ARGUMENTS
from exp.model.base import body_of
from exp.model.fused_elementwise import activation_of, is_plain_norm
from exp.model.fused_layer.attention import Heads, Streams
from exp.model.fused_layer.function import Norm, Parts, run_layer
from exp.model.fused_layer.linears import Adapter, Family
from exp.model.fused_lora import drops_inputs, is_fused
from exp.model.packed_linear import JointProduct, is_packed

log = logging.getLogger(__name__)

READ = {
    "LlamaDecoderLayer": "LlamaAttention",
    "MistralDecoderLayer": "MistralAttention",
    "Qwen2DecoderLayer": "Qwen2Attention",
}
"""Classes of layers, and of their attention, whose forward was read."""

QKV, GATED = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")

MOST_OFF = 2e-2
"""How much of what a layer adds to its input may differ, by norm; rounding in bf16 gives 5e-3."""

_FUSED = "_fused_layer"


def fuse_layers(model: PreTrainedModel) -> int:
    """Let each decoder layer whose linear layers are packed train as one function.

    A layer keeps its own forward for whatever is not training over a stream, and wherever it has a
    part that is not known here: another norm, dropout, an adapter of another kind. What a layer
    gives first is compared with what its own forward gives.

    Args:
        model: The base with its adapter attached, after `pack_linears`.

    Returns:
        The number of layers that have the forward.
    """
    streams, fused = Streams(), 0
    for layer in body_of(model).modules():
        attention = READ.get(type(layer).__name__)
        if attention is None or type(layer.self_attn).__name__ != attention:
            continue
        parts = _parts(layer)
        if parts is not None:
            layer.__dict__[_FUSED] = _FusedLayer(layer, parts, streams)
            layer.forward = types.MethodType(_forward, layer)
            fused += 1
    return fused


def _parts(layer: Any) -> Parts | None:
    """Take a layer apart; None where one of its parts is not known."""
    attention, mlp = layer.self_attn, layer.mlp
    activation = activation_of(mlp)
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    linears = [getattr(attention, name) for name in (*QKV, "o_proj")]
    linears += [getattr(mlp, name, None) for name in (*GATED, "down_proj")]
    known = all(map(is_plain_norm, norms)) and all(map(_is_known, linears))
    if not known or activation is None or attention.attention_dropout:
        return None
    q, k, v, output, gate, up, down = linears
    size = attention.head_dim
    return Parts(
        attention_norm=_norm(norms[0]),
        joint=_family([[q, k, v]]),
        heads=Heads(
            queries=q.out_features // size,
            keys=k.out_features // size,
            size=size,
            scaling=attention.scaling,
        ),
        output=_family([[output]]),
        mlp_norm=_norm(norms[1]),
        gate_and_up=_family([[gate], [up]]),
        activation=activation,
        down=_family([[down]]),
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _is_known(linear: nn.Module | None) -> bool:
    """Tell whether a linear layer is a packed one, alone or under a fused adapter."""
    if linear is None:
        return False
    if not is_fused(linear):
        return is_packed(linear)
    base: nn.Module = linear.base_layer  # type: ignore[assignment]
    return is_packed(base) and not drops_inputs(linear)


def _family(groups: list[list[Any]]) -> Family:
    """Build a family of groups of layers; each group is one product."""
    products, adapters = [], []
    for index, linears in enumerate(groups):
        bases = [each.base_layer if is_fused(each) else each for each in linears]
        products.append(JointProduct(bases))
        start = 0
        for linear, base in zip(linears, bases, strict=True):
            place = slice(start, start + base.out_features)
            start = place.stop
            if linear is not base:
                (name,) = linear.lora_A
                a, b = linear.lora_A[name].weight, linear.lora_B[name].weight
                adapters.append(Adapter(index, place, a, b, linear.scaling[name]))
    return Family(products, adapters)


class _FusedLayer:
    """What a layer needs to decide, call by call, and to compute."""

    def __init__(self, layer: Any, parts: Parts, streams: Streams) -> None:
        self.parts, self._streams = parts, streams
        linears = [module for module in layer.modules() if is_fused(module)]
        self._adapted: list[Any] = linears
        self.compared = False
        self.differs = False

    def serves(self, layer: nn.Module, x: Tensor, others: Mapping[str, Any]) -> bool:
        """Tell whether a call is training over a stream, and nothing else is asked for."""
        segments = others.get("segments")
        return (
            not self.differs
            and isinstance(segments, Segments)
            and torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not (layer.training and getattr(layer, "gradient_checkpointing", False))
            and x.dtype is torch.bfloat16
            and not any(each.disable_adapters or each.merged for each in self._adapted)
            and others.get("attention_mask") is None
            and others.get("past_key_values") is None
            and all(others.get(name) is None for name in (*UNSERVED_ARGUMENTS, "softcap"))
            and self._scores_bytes(segments, x) <= MATERIALISED_SCORES_BYTES
        )

    def _scores_bytes(self, segments: Segments, x: Tensor) -> int:
        rows, longest = segments.rows.shape
        seen = segments.prefix_length + longest
        suffixes = rows * longest * seen
        return self.parts.heads.queries * max(suffixes, segments.prefix_length**2) * x.itemsize

    def compute(self, x: Tensor, others: Mapping[str, Any]) -> Tensor:
        """Compute a layer's output, (1, tokens, hidden)."""
        stream = self._streams(others["segments"], others["position_embeddings"], self.parts.heads)
        return run_layer(self.parts, x[0], stream).unsqueeze(0)


def _forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    fused: _FusedLayer = self.__dict__[_FUSED]
    own = type(self).forward
    if args or not fused.serves(self, hidden_states, kwargs):
        output: Tensor = own(self, hidden_states, *args, **kwargs)
        return output
    if not fused.compared:
        fused.compared = True
        with torch.no_grad():
            expected = own(self, hidden_states, **kwargs) - hidden_states
            found = fused.compute(hidden_states, kwargs) - hidden_states
        off = float((found - expected).float().norm() / expected.float().norm())
        fused.differs = not off <= MOST_OFF
        if fused.differs:
            log.warning(
                "%s as one function is off by %.1f%% and is left out",
                type(self).__name__,
                100 * off,
            )
            return _forward(self, hidden_states, **kwargs)
    return fused.compute(hidden_states, kwargs)
