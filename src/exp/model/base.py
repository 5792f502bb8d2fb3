"""Build the frozen base model from its files, or with random weights from its architecture."""

from dataclasses import dataclass
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from exp.config.schema import DeviceMap, ModelConfig, Precision
from exp.errors import ModelError
from exp.model.device_map import check_placement
from exp.model.quantization import (
    NONE,
    check_files,
    loading_options,
    quantize_in_place,
    serve_quantized,
)
from exp.model.source import ModelFiles

DTYPES = {
    Precision.fp32: torch.float32,
    Precision.bf16: torch.bfloat16,
    Precision.fp16: torch.float16,
}


@dataclass(frozen=True, slots=True)
class Head:
    """How final hidden states become logits."""

    projection: nn.Module
    softcap: float | None
    scale: float


@dataclass(frozen=True, slots=True)
class Storage:
    """How the base's weights are kept, and where.

    Attributes:
        quantization: none, nf4, int8, gptq or awq.
        device: Where the model goes, if it is not spread.
        device_map: How the model is spread over all CUDA devices; None for one device.
        max_memory: GiB of weights per device, for a spread model.
        offload_gib: GiB of CPU memory for what no device has room for.
    """

    quantization: str = NONE
    device: str = "cpu"
    device_map: DeviceMap | None = None
    max_memory: tuple[float, ...] = ()
    offload_gib: float | None = None

    def loading_options(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return what from_pretrained needs to put weights where they belong as it reads them."""
        options = loading_options(self.quantization, dtype)
        if self.device_map is not None:
            memory: dict[int | str, str] = {i: f"{gib}GiB" for i, gib in enumerate(self.max_memory)}
            memory["cpu"] = f"{self.offload_gib or 0}GiB"
            # transformers' own "auto" is its "balanced"; filling one after the other has this name.
            fills = "balanced" if self.device_map is DeviceMap.balanced else "sequential"
            return options | {"device_map": fills, "max_memory": memory}
        if self.quantization != NONE:
            return options | {"device_map": {"": self.device}}
        return options


def load_base(
    config: ModelConfig,
    files: ModelFiles,
    precision: Precision,
    seed: int,
    storage: Storage | None = None,
) -> PreTrainedModel:
    """Load or make the causal LM, frozen, in the asked precision, on its device.

    Args:
        config: Which model.
        files: Its files, found.
        precision: Type of what is not quantised, and of the arithmetic.
        seed: Of random weights.
        storage: None: plain weights on the CPU.

    Raises:
        ModelError: The files do not hold a causal LM that transformers can build, hold it in
            another quantisation, or no device has room for it; or the body and the head do not
            give the model's own logits.
    """
    storage = storage or Storage()
    check_files(files.folder, storage.quantization, config.name)
    disable_progress_bar()  # a local file is read in a second
    dtype = DTYPES[precision]
    if files.folder is None:
        if storage.device_map is not None:
            raise ModelError(
                "A model with random weights is not spread over devices.",
                where=f"hardware.device_map={storage.device_map.value}",
                fix="hardware.device_map=null, or model.weights=pretrained",
            )
        model = _random_model(config.architecture, dtype, seed)
        quantize_in_place(model, storage.quantization, storage.device)
    else:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                files.folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
                **storage.loading_options(dtype),
            )
        except torch.OutOfMemoryError:
            raise
        except (
            ValueError,
            OSError,
            KeyError,
            ImportError,
            RuntimeError,
            SafetensorError,
        ) as error:
            raise _not_loadable(config, files, str(error).strip().splitlines()[0]) from error
        model, loading = loaded
        # transformers would make them up, and only warn.
        if loading["missing_keys"]:
            raise _not_loadable(config, files, f"it lacks {min(loading['missing_keys'])}")
        if storage.device_map is not None:
            check_placement(model, config.name, storage.offload_gib)
        elif storage.quantization == NONE:
            model.to(storage.device)
    serve_quantized(model)
    model.requires_grad_(False)
    # A repository's generation settings must not leak into ours, which are built from zero.
    model.generation_config = type(model.generation_config)()
    _check_head(model, config.name)
    return model


def _not_loadable(config: ModelConfig, files: ModelFiles, why: str) -> ModelError:
    return ModelError(
        f"model={config.name} cannot be loaded: {why}",
        where=files.origin,
        fix="check that the folder holds a causal LM that this transformers version knows",
    )


def _random_model(architecture: dict[str, Any], dtype: torch.dtype, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**architecture), dtype=dtype
        )
    return model.eval()


def body_of(model: PreTrainedModel) -> nn.Module:
    """Return the decoder without its head: token ids -> final hidden states."""
    body: nn.Module = model.base_model
    return body


def plain_attention(model: PreTrainedModel) -> str:
    """Name the model's own attention: SDPA, or eager where it does not know SDPA (Gemma 2)."""
    return "sdpa" if model._supports_sdpa else "eager"


def head_of(model: PreTrainedModel) -> Head:
    """Return the output projection together with what the architecture does to its result."""
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None)
    scale = 1 / divisor if divisor else getattr(config, "logit_scale", None) or 1.0
    projection = model.get_output_embeddings()
    if isinstance(projection, ModulesToSaveWrapper):
        (name,) = projection.modules_to_save
        projection = projection.modules_to_save[name]
    return Head(
        projection=projection,
        softcap=getattr(config, "final_logit_softcapping", None),
        scale=scale,
    )


def project(projection: nn.Module, hidden: Tensor) -> Tensor:
    """Apply an output projection, in fp32 if it is a trained copy on a base of 16 bits."""
    if isinstance(projection, nn.Linear):
        hidden = hidden.to(projection.weight.dtype)
    projected: Tensor = projection(hidden)
    return projected


def logits_of(head: Head, hidden: Tensor) -> Tensor:
    """Project final hidden states (..., hidden) to float32 logits (..., vocab)."""
    logits = project(head.projection, hidden).float()
    if head.scale != 1.0:
        logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


@torch.no_grad()
def _check_head(model: PreTrainedModel, name: str) -> None:
    """Refuse an architecture whose logits are not head(body(ids)): training would be wrong."""
    ids = torch.arange(8, device=model.device).unsqueeze(0)
    was_training = model.training
    model.eval()
    expected = model(input_ids=ids, use_cache=False).logits.float()
    hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    model.train(was_training)
    if not torch.allclose(expected, logits_of(head_of(model), hidden), rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"model={name}: its logits are more than a projection of its hidden states, in a way "
            "that is not known here.",
            where=type(model).__name__,
            fix="choose another model, e.g. model=qwen3_0_6b",
        )
