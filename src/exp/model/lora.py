"""Put a LoRA adapter on the base, take its weights out, and load them back, exactly."""

import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.errors import CheckpointError, ConfigError, raise_collected
from exp.model.device_map import follow_base
from exp.model.fused_elementwise import fuse_elementwise
from exp.model.fused_lora import fuse_lora
from exp.model.quantization import is_quantized

ALL_LINEAR = "all-linear"

INITS = (None, True, False, "gaussian", "orthogonal", "olora", "pissa")
"""Starts that need the base's weights alone. PEFT's others need data, prepared files or luck."""

SUBTRACTED_INITS = ("olora", "pissa")
"""Starts that take the adapter's first product out of the base's weights. An adapter file is to fit
the untouched base, so both products go into it: as one adapter of twice the rank."""

_START = "exp_lora_start"


def attach_lora(
    model: PreTrainedModel, config: LoraConfig, seed: int, *, fuse: bool = True
) -> PeftModel:
    """Wrap the base in a PEFT model whose adapter is new, trainable and fp32.

    Args:
        model: The frozen base; its targeted layers are replaced in place.
        config: Rank, targets and the rest.
        seed: The adapter's random start follows from it alone.
        fuse: Give its layers the fused forward; without it they keep PEFT's own.

    Raises:
        ConfigError: No layer has a targeted name, or PEFT refuses the combination.
    """
    raise_collected(
        [
            *_check_init(model, config),
            *_check_targets(model, config),
            *_check_trained_copies(model, config),
        ]
    )
    with torch.random.fork_rng(range(torch.cuda.device_count())):
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
    _trainables_to_fp32(wrapped)
    _follow_base(wrapped, seed)
    if _init(config) in SUBTRACTED_INITS:
        setattr(wrapped, _START, adapter_weights(wrapped))
    if fuse:
        fuse_lora(wrapped)
        fuse_elementwise(wrapped)
    return wrapped


def load_lora(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Wrap the base in the adapter of a folder, frozen, in fp32.

    Raises:
        CheckpointError: The file's weights are not exactly those that this model's adapter has.
    """
    config = PeftLoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    # PEFT would warn that the base has another name; whether it fits is checked below, by weights.
    config.base_model_name_or_path = None
    wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    _trainables_to_fp32(wrapped)
    _follow_base(wrapped, seed=0)
    set_adapter_weights(wrapped, load_file(folder / "adapter_model.safetensors"), str(folder))
    wrapped.requires_grad_(False)
    fuse_lora(wrapped)
    return wrapped


def adapter_weights(model: PeftModel) -> dict[str, Tensor]:
    """Copy the adapter's weights, under the names that PEFT files have, to the CPU."""
    start: dict[str, Tensor] = getattr(model, _START, {})
    weights = {}
    for name, tensor in get_peft_model_state_dict(model).items():
        copied = tensor.detach().cpu().contiguous().clone()
        if name in start and "lora_A" in name:
            copied = torch.cat([copied, start[name]], dim=0)
        elif name in start and "lora_B" in name:
            copied = torch.cat([copied, -start[name]], dim=1)
        weights[name] = copied
    return weights


def set_adapter_weights(model: PeftModel, weights: dict[str, Tensor], where: str) -> None:
    """Load adapter weights; any name too many or too few is an error, never a silent no-op."""
    expected = {name: tensor.shape for name, tensor in adapter_weights(model).items()}
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    misshapen = {
        name for name in expected.keys() & weights.keys() if expected[name] != weights[name].shape
    }
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"The adapter does not fit this model: {len(missing)} weights are missing, "
            f"{len(unexpected)} are unknown and {len(misshapen)} have another shape, e.g. "
            f"{min(missing | unexpected | misshapen)}.",
            where=where,
            fix="use the base model and the lora settings that the adapter was trained with",
        )
    start: dict[str, Tensor] = getattr(model, _START, {})
    weights = dict(weights)
    for name, tensor in start.items():
        if "lora_A" in name:
            weights[name] = weights[name][: tensor.shape[0]].contiguous()
        elif "lora_B" in name:
            weights[name] = weights[name][:, : tensor.shape[1]].contiguous()
    set_peft_model_state_dict(model, weights)


def adapter_config(model: PeftModel, base_name: str) -> dict[str, Any]:
    """Return adapter_config.json as a plain dict that PEFT, transformers and vLLM load."""
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base_name
    config["inference_mode"] = True
    if not isinstance(config["target_modules"], str):
        # "all-linear" becomes a list of full names; vLLM knows layers by the last word.
        config["target_modules"] = {name.rsplit(".", 1)[-1] for name in config["target_modules"]}
    if getattr(model, _START, None):
        # PEFT scales by alpha / r, or by alpha / sqrt(r); both must stay what they were.
        factor = math.sqrt(2) if config["use_rslora"] else 2
        config["init_lora_weights"] = True
        config["r"] *= 2
        config["lora_alpha"] *= factor
        config["rank_pattern"] = {k: 2 * v for k, v in config["rank_pattern"].items()}
        config["alpha_pattern"] = {k: factor * v for k, v in config["alpha_pattern"].items()}
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


def _trainables_to_fp32(model: PeftModel) -> None:
    """In 16 bits, updates of a usual learning rate round to nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _follow_base(model: PeftModel, seed: int) -> None:
    init = model.peft_config["default"].to_dict()["init_lora_weights"]
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                follow_base(module, init)


def _init(config: LoraConfig) -> Any:
    return config.init if config.init is not None else config.peft.get("init_lora_weights")


def _check_init(model: PreTrainedModel, config: LoraConfig) -> list[ConfigError]:
    """Refuse starts that need more than the base, and combinations that no file could hold."""
    init = _init(config)
    if init not in INITS:
        names = ", ".join(name for name in INITS if isinstance(name, str))
        return [
            ConfigError(
                f"lora.init={init} is not served; served are null, {names}.",
                where="lora.init",
                fix="lora.init=pissa, or lora.init=null",
            )
        ]
    if init in SUBTRACTED_INITS and any(map(is_quantized, model.modules())):
        return [
            ConfigError(
                f"lora.init={init} changes the base's weights, and quantised ones can only be "
                "changed by rounding them anew.",
                where="lora.init",
                fix="lora.init=null, or quantization=none",
            )
        ]
    if init in SUBTRACTED_INITS and (config.dora or config.peft.get("use_dora")):
        return [
            ConfigError(
                f"lora.init={init} changes the base's weights, whose norms lora.dora=true keeps; "
                "no adapter file can hold both.",
                where="lora.init",
                fix="lora.dora=false, or lora.init=null",
            )
        ]
    return []


def _check_trained_copies(model: PreTrainedModel, config: LoraConfig) -> list[ConfigError]:
    """Refuse to train parts of a 16-bit or quantised base, the head apart.

    What is trained is fp32; only the loss and the adapters expect that beside other types.
    """
    if model.dtype is torch.float32 and not any(map(is_quantized, model.modules())):
        return []
    head = model.get_output_embeddings()
    heads = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if module is head}
    asked = [f"modules_to_save={n}" for n in config.peft.get("modules_to_save") or ()]
    foreign = [one for one in asked if one.partition("=")[2] not in heads]
    bias = config.peft.get("bias", "none")
    foreign += [] if bias == "none" else [f"bias={bias}"]
    return [
        ConfigError(
            f"lora.peft.{one} trains a part of the base, which is served in fp32 only.",
            where=f"lora.peft.{one}",
            fix="hardware.precision=fp32, and quantization=none",
        )
        for one in foreign
    ]


def _check_targets(model: PreTrainedModel, config: LoraConfig) -> list[ConfigError]:
    """Refuse targets that match nothing, each by name; PEFT complains only if none matches."""
    if list(config.target_modules) == [ALL_LINEAR]:
        return []
    errors = []
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        # Layers of GPTQ and AWQ are no nn.Linear.
        if hasattr(module, "in_features")
    }
    unmatched = [target for target in config.target_modules if target not in linear]
    if unmatched:
        errors.append(
            ConfigError(
                f"lora.target_modules names {', '.join(unmatched)}, but the model has no such "
                f"linear layer; it has {', '.join(sorted(linear))}.",
                where="lora.target_modules",
                fix=f"lora.target_modules=[{','.join(sorted(linear - {'lm_head'}))}]",
            )
        )
    if "lm_head" in config.target_modules and model.config.get_text_config().tie_word_embeddings:
        errors.append(
            ConfigError(
                "lora.target_modules names lm_head, whose weight this model ties to its "
                "embeddings; a merged adapter would change both.",
                where="lora.target_modules",
                fix='drop lm_head, or use lora.target_modules=["all-linear"], which leaves it out',
            )
        )
    return errors
