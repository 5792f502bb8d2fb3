"""Optimizers by name: one row each."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from exp.config.schema import OptimizerConfig
from exp.errors import HardwareError, MissingExtraError
from exp.hardware.probe import quiet_bitsandbytes


def _adamw(parameters: list[Parameter], config: OptimizerConfig, fused: bool) -> Optimizer:
    return AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def _adamw_8bit(
    parameters: list[Parameter], config: OptimizerConfig, fused: bool, *, paged: bool = False
) -> Optimizer:
    """AdamW of bitsandbytes, fused always; parameters below 4096 elements keep fp32 means.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        HardwareError: Pages were asked for where there is no CUDA memory to page out of.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "quantization", f"optimizer={config.name}")
    if paged and not any(parameter.is_cuda for parameter in parameters):
        raise HardwareError(
            "Paged optimizers move their state out of a CUDA device's memory; this run has none.",
            where=f"optimizer={config.name}",
            fix="optimizer=adamw_8bit",
        )
    quiet_bitsandbytes()
    from bitsandbytes.optim.adamw import AdamW8bit

    optimizer: Optimizer = AdamW8bit(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        is_paged=paged,
    )
    return optimizer


OPTIMIZERS: dict[str, Callable[[list[Parameter], OptimizerConfig, bool], Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "paged_adamw_8bit": partial(_adamw_8bit, paged=True),
}


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig, fused: bool
) -> Optimizer:
    """Build the named optimizer over the trainable parameters."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return OPTIMIZERS[config.name](trainable, config, fused)
