"""Bases whose linear layers are kept in 8 or 4 bits, and computed as what they decode to.

bitsandbytes stores the weights. Its own layers, though, compute one thing in training and another
in evaluation: on a CPU a 4-bit layer is repacked at its first evaluation and from then on gives its
input no gradient, and an 8-bit layer rounds activations by limits that depend on the rest of the
batch. Here a layer is, in every mode and every batch, the linear layer of its decoded weight; only
the 4-bit product on CUDA, which is just that, stays bitsandbytes' own.
"""

import json
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from exp.errors import ModelError
from exp.hardware.capability import BITSANDBYTES, CHECKPOINT_QUANTIZATIONS
from exp.hardware.probe import quiet_bitsandbytes

NONE = "none"
BITS_AND_BYTES_LAYERS = {"Linear4bit": "nf4", "Linear8bitLt": "int8"}
"""Class names of bitsandbytes' layers; it takes seconds to import, so that is not done to look."""


def loading_options(quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return what from_pretrained needs to quantise weights while it reads them."""
    if quantization not in BITSANDBYTES:
        return {}
    quiet_bitsandbytes()
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        # No outlier columns: which ones there are would depend on the rest of the batch.
        options: dict[str, Any] = {"load_in_8bit": True, "llm_int8_threshold": 0.0}
    else:
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
        }
    return {"quantization_config": BitsAndBytesConfig(**options)}


def check_files(folder: Path | None, quantization: str, model_name: str) -> None:
    """Refuse files whose storage is not the one that was asked for.

    Raises:
        ModelError: The files are quantised otherwise, or not at all where that is needed.
    """
    stored = _stored_quantization(folder)
    if stored == quantization or (stored == NONE and quantization in BITSANDBYTES):
        return
    known = stored in (*BITSANDBYTES, *CHECKPOINT_QUANTIZATIONS)
    raise ModelError(
        f"The weights of model={model_name} are stored "
        f"{'without quantisation' if stored == NONE else f'as {stored}'}; quantization="
        f"{quantization} cannot read them.",
        where=str(folder or "random weights"),
        fix=f"quantization={stored}"
        if stored == NONE or known
        else "choose files without quantisation, and quantization=nf4 or int8",
    )


def _stored_quantization(folder: Path | None) -> str:
    """Read from config.json how a checkpoint is quantised."""
    if folder is None:
        return NONE
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = content.get("quantization_config")
    if not stored:
        return NONE
    method = str(stored.get("quant_method", "unknown"))
    if method in ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"):
        if stored.get("load_in_8bit"):
            return "int8"
        return str(stored.get("bnb_4bit_quant_type", "fp4"))
    return method


def quantize_in_place(
    model: PreTrainedModel, quantization: str, device: torch.device | str
) -> PreTrainedModel:
    """Quantise a model that is in memory, layer by layer, and put it onto the device.

    The layers are those that transformers would take: every linear one but the head.
    """
    if quantization in BITSANDBYTES:
        quiet_bitsandbytes()
        from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

        head = model.get_output_embeddings()
        layers = {
            name: module
            for name, module in model.named_modules()
            if type(module) is nn.Linear and module is not head
        }
        for name, layer in layers.items():
            shape = layer.in_features, layer.out_features, layer.bias is not None
            replacement: Any
            with torch.device("meta"):
                if quantization == "int8":
                    replacement = Linear8bitLt(*shape, has_fp16_weights=False)
                else:
                    replacement = Linear4bit(
                        *shape, layer.weight.dtype, compress_statistics=True, quant_type="nf4"
                    )
            kind = type(replacement.weight)
            settings = (
                {"has_fp16_weights": False}
                if quantization == "int8"
                else {"compress_statistics": True, "quant_type": "nf4", "module": replacement}
            )
            replacement.weight = kind(layer.weight.data, requires_grad=False, **settings).to(device)
            replacement.bias = layer.bias
            model.set_submodule(name, replacement)
        setattr(model, "is_loaded_in_8bit" if quantization == "int8" else "is_loaded_in_4bit", True)
    return model.to(device)  # type: ignore[arg-type]


def is_quantized(module: nn.Module) -> bool:
    """Tell whether a layer's weight is stored by bitsandbytes; PEFT's wrappers have equal names."""
    kind = type(module)
    return kind.__name__ in BITS_AND_BYTES_LAYERS and kind.__module__.startswith("bitsandbytes.")


def serve_quantized(model: nn.Module) -> int:
    """Let quantised layers compute with their decoded weights, alike in training and evaluation.

    Returns:
        The number of layers whose forward was replaced.
    """
    served = 0
    for module in filter(is_quantized, model.modules()):
        weight: Tensor = module.weight  # type: ignore[assignment]
        if BITS_AND_BYTES_LAYERS[type(module).__name__] == "nf4" and weight.device.type == "cuda":
            continue
        # Decoding reads more than plain tensors, so a compiler is to leave it out.
        forward = torch.compiler.disable(_decoded_forward)
        module.forward = types.MethodType(forward, module)
        served += 1
    return served


@contextmanager
def decoding_in_any_type(model: nn.Module) -> Iterator[None]:
    """Within the block, quantised layers compute in the type of their input, on CUDA too."""
    # What spreads a model over devices has put a forward into each layer: around the layer's own.
    names = {
        layer: "_old_forward" if hasattr(layer, "_hf_hook") else "forward"
        for layer in model.modules()
        if is_quantized(layer)
    }
    before = {layer: layer.__dict__.get(name) for layer, name in names.items()}
    for layer, name in names.items():
        setattr(layer, name, types.MethodType(_decoded_forward, layer))
    try:
        yield
    finally:
        for layer, name in names.items():
            if before[layer] is None:
                del layer.__dict__[name]
            else:
                setattr(layer, name, before[layer])


def decoded_weight(layer: Any, dtype: torch.dtype) -> Tensor:
    """Decode a quantised layer's weight, (out, in)."""
    from bitsandbytes import functional as bnb

    weight = layer.weight
    if BITS_AND_BYTES_LAYERS[type(layer).__name__] == "nf4":
        decoded: Tensor = bnb.dequantize_4bit(weight.data, weight.quant_state)
    else:
        scale = layer.state.SCB if weight.SCB is None else weight.SCB
        decoded = bnb.int8_vectorwise_dequant(weight.data, scale)
    return decoded.to(dtype)


def _decoded_forward(self: Any, x: Tensor) -> Tensor:
    # Flat rows: a product with bias is a view otherwise, which the adapter could not add onto.
    rows: Tensor = _DecodedLinear.apply(x.reshape(-1, x.shape[-1]), self)
    return rows if x.dim() == 2 else rows.view(*x.shape[:-1], rows.shape[-1])


class _DecodedLinear(torch.autograd.Function):
    """x W^T + b, with W decoded for the forward and once more for the gradient of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return functional.linear(x, decoded_weight(layer, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        return gradient @ decoded_weight(ctx.layer, gradient.dtype), None
