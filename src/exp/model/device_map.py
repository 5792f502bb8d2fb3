"""One model over several devices: where its parts lie, and what has to follow them."""

from typing import Any

from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from exp.errors import ModelError

OFFLOADED = ("cpu", "disk")


def placement(model: nn.Module) -> dict[str, Any]:
    """Name the parts of a spread model with their devices; {} for a model in one place."""
    found = dict(getattr(model, "hf_device_map", None) or {})
    return found if len(set(map(str, found.values()))) > 1 else {}


def is_spread(model: nn.Module) -> bool:
    """Tell whether parts of a model lie on different devices, or are copied there at every use."""
    return bool(placement(model))


def check_placement(model: PreTrainedModel, name: str, offload_gib: float | None) -> None:
    """Refuse a placement that training cannot work with.

    Raises:
        ModelError: The devices have no room for the whole model, or none for embeddings and head.
    """
    parts = placement(model)
    more = (
        "quantization=nf4, hardware.max_memory=[...] with more GiB, or hardware.offload_gib=<GiB>"
    )
    homeless = [part for part, device in parts.items() if str(device) == "disk"]
    if homeless or (offload_gib is None and "cpu" in map(str, parts.values())):
        raise ModelError(
            f"model={name} does not fit onto the devices: no room for "
            f"{len(homeless) or 'some'} of its {len(parts)} parts.",
            where="hardware.max_memory",
            fix=more,
        )
    head = model.get_output_embeddings()
    if any(weight.device.type == "meta" for weight in head.parameters()):
        raise ModelError(
            f"The head of model={name} would lie in CPU memory, but the loss reads its weights at "
            "every step.",
            where="hardware.max_memory",
            fix=more,
        )


def follow_base(layer: LoraLayer, init: Any) -> None:
    """Put an adapter where its base layer computes, which may not be where that is kept.

    Args:
        layer: One LoRA layer.
        init: PEFT's init_lora_weights, for adapters that PEFT made without content, as the base
            layer is in CPU memory.
    """
    hook = getattr(layer.get_base_layer(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        return
    for part in layer.adapter_layer_names:
        for name, adapter in getattr(layer, part).items():
            if any(parameter.is_meta for parameter in adapter.parameters()):
                adapter.to_empty(device=device)
                if part == "lora_B":  # lora_A has its place by now
                    layer.reset_lora_parameters(name, init)
            else:
                adapter.to(device)
