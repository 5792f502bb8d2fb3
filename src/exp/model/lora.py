"""Put a LoRA adapter on the base, take its weights out, and load them back, exactly."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.errors import CheckpointError, ConfigError
from exp.model.fused_lora import fuse_lora

ALL_LINEAR = "all-linear"


def attach_lora(model: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    """Wrap the base in a PEFT model whose adapter is new, trainable and fp32.

    Args:
        model: The frozen base; its targeted layers are replaced in place.
        config: Rank, targets and the rest.
        seed: The adapter's random start follows from it alone.

    Raises:
        ConfigError: No layer has a targeted name, or PEFT refuses the combination.
    """
    _check_targets(model, config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, _peft_config(config))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ConfigError(
                f"PEFT refuses this adapter: {str(error).strip().splitlines()[0]}",
                where="lora",
                fix="change lora.* (exp explain lora), or use lora=standard",
            ) from error
    assert isinstance(wrapped, PeftModel)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            # In 16 bits, updates of a usual learning rate round to nothing.
            parameter.data = parameter.data.float()
    fuse_lora(wrapped)
    return wrapped


def load_lora(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Wrap the base in the adapter of a folder, frozen, in fp32.

    Raises:
        CheckpointError: The file's weights are not exactly those that this model's adapter has.
    """
    wrapped = get_peft_model(model, PeftLoraConfig.from_pretrained(str(folder)))
    assert isinstance(wrapped, PeftModel)
    set_adapter_weights(wrapped, load_file(folder / "adapter_model.safetensors"), str(folder))
    wrapped.requires_grad_(False)
    fuse_lora(wrapped)
    return wrapped


def adapter_weights(model: PeftModel) -> dict[str, Tensor]:
    """Copy the adapter's weights, under the names that PEFT files have, to the CPU."""
    weights = get_peft_model_state_dict(model)
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}


def set_adapter_weights(model: PeftModel, weights: dict[str, Tensor], where: str) -> None:
    """Load adapter weights; any name too many or too few is an error, never a silent no-op."""
    expected = set(get_peft_model_state_dict(model))
    missing, unexpected = expected - set(weights), set(weights) - expected
    if missing or unexpected:
        raise CheckpointError(
            f"The adapter does not fit this model: {len(missing)} weights are missing and "
            f"{len(unexpected)} are unknown, e.g. {next(iter(sorted(missing | unexpected)))}.",
            where=where,
            fix="use the base model and the lora settings that the adapter was trained with",
        )
    set_peft_model_state_dict(model, weights)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def adapter_config(model: PeftModel, base_name: str) -> dict[str, Any]:
    """Return adapter_config.json as a plain dict that PEFT, transformers and vLLM load."""
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base_name
    config["inference_mode"] = True
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in config.items()
    }


def _peft_config(config: LoraConfig) -> PeftLoraConfig:
    options: dict[str, Any] = dict(config.peft)
    if config.init is not None:
        options["init_lora_weights"] = config.init
    targets: str | list[str] = list(config.target_modules)
    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT computes with any number
        lora_dropout=config.dropout,
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        use_rslora=config.rank_stabilized,
        use_dora=config.dora,
        **options,
    )


def _check_targets(model: PreTrainedModel, config: LoraConfig) -> None:
    """Refuse targets that match nothing, each by name; PEFT complains only if none matches."""
    if list(config.target_modules) == [ALL_LINEAR]:
        return
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    unmatched = [target for target in config.target_modules if target not in linear]
    if unmatched:
        raise ConfigError(
            f"lora.target_modules names {', '.join(unmatched)}, but the model has no such linear "
            f"layer; it has {', '.join(sorted(linear))}.",
            where="lora.target_modules",
            fix=f"lora.target_modules=[{','.join(sorted(linear - {'lm_head'}))}]",
        )
    if "lm_head" in config.target_modules and model.config.get_text_config().tie_word_embeddings:
        raise ConfigError(
            "lora.target_modules names lm_head, whose weight this model ties to its embeddings; a "
            "merged adapter would change both.",
            where="lora.target_modules",
            fix='drop lm_head, or use lora.target_modules=["all-linear"], which leaves it out',
        )
