import pytest
import torch
from torch import nn

from exp.config.schema import OptimizerConfig
from exp.training.optimizer import build_optimizer


def adamw_by_hand(weight: torch.Tensor, gradients: list[torch.Tensor], c: OptimizerConfig) -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in the order in which it is written there."""
    mean = square = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        mean = c.beta1 * mean + (1 - c.beta1) * gradient
        square = c.beta2 * square + (1 - c.beta2) * gradient**2
        corrected = (square / (1 - c.beta2**step)).sqrt() + c.eps
        weight -= c.lr * c.weight_decay * weight
        weight -= c.lr * (mean / (1 - c.beta1**step)) / corrected


@pytest.mark.parametrize("fused", [False, True])
def test_adamw_takes_every_setting(fused: bool) -> None:
    config = OptimizerConfig(lr=0.1, weight_decay=0.3, beta1=0.7, beta2=0.8, eps=0.01)
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    expected = parameter.detach().clone()
    gradients = [torch.randn(5, dtype=torch.float64) for _ in range(4)]
    optimizer = build_optimizer([parameter], config, fused)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    adamw_by_hand(expected, gradients, config)
    torch.testing.assert_close(parameter.detach(), expected)
    assert optimizer.defaults["fused"] == fused


def test_frozen_parameters_are_left_out() -> None:
    layers = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 3))
    optimizer = build_optimizer(layers.parameters(), OptimizerConfig(), fused=False)
    (group,) = optimizer.param_groups
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(3, 2), (3,)]
