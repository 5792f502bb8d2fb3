"""Serve inference from merged weights for a while, and give the training weights back untouched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from exp.config.schema import LoraConfig, Precision
from exp.records import Derived


@contextmanager
def merged_for_inference(model: nn.Module) -> Iterator[None]:
    """Within the block, plain LoRA layers run as single linear layers with merged weights.

    The sum of base and update is taken in fp32 and cast once to the base's type; the base's own
    weights are put aside and put back, so nothing is lost to rounding. Layers that cannot be
    merged so (quantised bases, DoRA) stay as they are. The model is in eval mode within the block.

    Args:
        model: A PEFT model; a model without an adapter is only put into eval mode.
    """
    layers = [m for m in model.modules() if isinstance(m, PeftLinear) and _can_merge(m)]
    was_training = model.training
    saved: list[tuple[PeftLinear, Tensor, object]] = []
    model.eval()
    try:
        for layer in layers:
            base = cast(nn.Linear, layer.base_layer)
            saved.append((layer, base.weight.data, layer.__dict__.get("forward")))
            base.weight.data = _merged_weight(layer)
            layer.forward = base.forward  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer, weight, forward in saved:
            layer.base_layer.weight.data = weight
            if forward is None:
                del layer.__dict__["forward"]
            else:
                layer.forward = forward  # type: ignore[assignment]
        model.train(was_training)


def is_merged_exactly(model: nn.Module) -> bool:
    """Tell whether all LoRA layers of a model take part in `merged_for_inference`."""
    if not isinstance(model, PeftModel):
        return True
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    return all(isinstance(layer, PeftLinear) and _can_merge(layer) for layer in layers)


def scored_weights(quantization: str, precision: Precision, lora: LoraConfig) -> Derived:
    """Say what predictions are computed with: the adapter merged into what, or beside what.

    A quantised base is never merged. Added to the decoded weights, the update gives another model
    than the one that was trained and scored; rounded to the quantisation's few values, most of it
    would be lost.
    """
    name = "scored weights"
    if quantization != "none":
        value = f"the {quantization} base, and the adapter beside it"
        return Derived(name, value, "merging would round the adapter, or drop the quantisation")
    if lora.dora or lora.peft.get("use_dora") or lora.peft.get("lora_bias"):
        return Derived(name, "the base, and the adapter beside it", "only plain LoRA is merged")
    return Derived(name, f"the adapter merged into the {precision.name} base", "summed in fp32")


def _can_merge(layer: PeftLinear) -> bool:
    return (
        type(layer.base_layer) is nn.Linear
        and layer.base_layer.weight.device.type != "meta"
        and not layer.lora_variant
        and not layer.disable_adapters
        and not layer.merged
        and not any(layer.lora_bias.values())
    )


@torch.no_grad()
def _merged_weight(layer: PeftLinear) -> Tensor:
    base = cast(nn.Linear, layer.base_layer).weight
    total = base.float()
    for name in layer.active_adapters:
        a = cast(nn.Linear, layer.lora_A[name]).weight.float()
        b = cast(nn.Linear, layer.lora_B[name]).weight.float()
        total = total + layer.scaling[name] * (b @ a)
    return total.to(base.dtype)


def merge_for_good(model: PeftModel) -> None:
    """Merge every plain LoRA layer and keep it so; for models that are only used from then on."""
    for layer in [m for m in model.modules() if isinstance(m, PeftLinear) and _can_merge(m)]:
        base = cast(nn.Linear, layer.base_layer)
        base.weight.data = _merged_weight(layer)
        layer.forward = base.forward  # type: ignore[method-assign,assignment]
