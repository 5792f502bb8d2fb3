from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from exp.config.schema import OptimizerConfig
from exp.errors import HardwareError, MissingExtraError
from exp.training.optimizer import build_optimizer
from exp.training.optimizer_state import optimizer_to_tensors, tensors_to_optimizer


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


needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@needs_bitsandbytes
def test_adamw_in_8_bits_keeps_close_to_adamw() -> None:
    config = OptimizerConfig(name="adamw_8bit", lr=0.01, weight_decay=0.1)
    parameter = nn.Parameter(torch.randn(64, 128))  # 4096 elements and more are kept in 8 bits
    expected = parameter.detach().clone()
    gradients = [torch.randn(64, 128) for _ in range(5)]
    optimizer = build_optimizer([parameter], config, fused=False)
    start = parameter.detach().clone()
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    adamw_by_hand(expected, gradients, config)
    state = optimizer.state[parameter]
    assert state["state1"].dtype is state["state2"].dtype is torch.uint8
    moved = expected - start
    assert float((parameter.detach() - expected).norm() / moved.norm()) < 0.05


@needs_bitsandbytes
def test_the_state_of_adamw_in_8_bits_survives_being_written() -> None:
    config = OptimizerConfig(name="adamw_8bit", lr=0.01)
    gradients = [torch.randn(64, 128) for _ in range(4)]
    weights = [nn.Parameter(torch.ones(64, 128)), nn.Parameter(torch.ones(64, 128))]
    optimizer = build_optimizer(weights[:1], config, fused=False)
    for gradient in gradients[:2]:
        weights[0].grad = gradient
        optimizer.step()
    tensors, structure = optimizer_to_tensors(optimizer.state_dict())
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)
    read = load(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    weights[1].data.copy_(weights[0].data)
    other = build_optimizer(weights[1:], config, fused=False)
    other.load_state_dict(tensors_to_optimizer(read, structure))
    for gradient in gradients[2:]:
        weights[0].grad = weights[1].grad = gradient
        optimizer.step()
        other.step()
    assert torch.equal(weights[0], weights[1])


@needs_bitsandbytes
def test_pages_need_a_cuda_device() -> None:
    config = OptimizerConfig(name="paged_adamw_8bit")
    with pytest.raises(HardwareError) as caught:
        build_optimizer([nn.Parameter(torch.ones(2))], config, False)
    assert caught.value.fix == "optimizer=adamw_8bit"


def test_a_missing_bitsandbytes_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exp.training.optimizer.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        build_optimizer([nn.Parameter(torch.ones(2))], OptimizerConfig(name="adamw_8bit"), False)
    assert caught.value.fix == 'pip install "exp[quantization]"'
