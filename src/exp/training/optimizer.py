"""Optimizers by name: one row each."""

from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from exp.config.schema import OptimizerConfig


def _adamw(parameters: list[Parameter], config: OptimizerConfig, fused: bool) -> Optimizer:
    return AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused,
    )


OPTIMIZERS: dict[str, Callable[[list[Parameter], OptimizerConfig, bool], Optimizer]] = {
    "adamw": _adamw,
}


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig, fused: bool
) -> Optimizer:
    """Build the named optimizer over the trainable parameters."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return OPTIMIZERS[config.name](trainable, config, fused)
