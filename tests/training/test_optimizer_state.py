import pytest
import torch

from exp.errors import CheckpointError
from exp.rundir import RunDir
from exp.training.checkpoint import read_checkpoint, write_checkpoint
from exp.training.optimizer_state import optimizer_to_tensors, tensors_to_optimizer


def train(optimizer_class, steps, **options):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimizer = optimizer_class(layer.parameters(), **options)
    for _ in range(steps):
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return optimizer


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.parametrize(
    "state",
    [
        train(torch.optim.AdamW, 3, lr=1e-3, amsgrad=True).state_dict(),
        train(torch.optim.SGD, 3, lr=0.1, momentum=0.9).state_dict(),
        train(torch.optim.AdamW, 2, lr=torch.tensor(0.1)).state_dict(),
        train(torch.optim.Adafactor, 2).state_dict(),
        {"a": float("inf"), "b": -0.0, "c": 0.1 + 0.2, "d": (1, [2, None, True]), 3: {"3": "x"}},
        {"e": torch.ones(2, dtype=torch.bfloat16), "f": torch.tensor([], dtype=torch.uint8)},
        {},
    ],
)
def test_an_optimizer_state_survives_files_bit_for_bit(tmp_path, state):
    flat, structure = optimizer_to_tensors(state)
    path = write_checkpoint(RunDir(tmp_path), 1, {}, {}, flat, {"optimizer": structure})
    found = read_checkpoint(path)
    assert same(state, tensors_to_optimizer(found.optimizer_tensors, found.state["optimizer"]))


def test_a_restored_optimizer_goes_on_as_if_never_stopped():
    straight = train(torch.optim.AdamW, 4, lr=0.1)
    resumed = train(torch.optim.AdamW, 3, lr=0.1)
    restored = tensors_to_optimizer(*optimizer_to_tensors(resumed.state_dict()))
    resumed.load_state_dict(restored)
    parameters = resumed.param_groups[0]["params"]
    weight, bias = parameters
    (torch.ones(1, 3) @ weight.T + bias).square().sum().backward()
    resumed.step()
    for a, b in zip(straight.param_groups[0]["params"], parameters, strict=True):
        assert torch.equal(a, b)


def test_a_missing_or_surplus_optimizer_tensor_is_an_error():
    flat, structure = optimizer_to_tensors({"state": {0: {"exp_avg": torch.ones(1)}}})
    with pytest.raises(CheckpointError):
        tensors_to_optimizer({}, structure)
    with pytest.raises(CheckpointError, match=r"extra"):
        tensors_to_optimizer({**flat, "extra": torch.ones(1)}, structure)


@pytest.mark.parametrize(
    "state", [{"a": object()}, {1.5: 1}, {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}]
)
def test_a_state_that_cannot_be_kept_exactly_is_refused(state):
    with pytest.raises(TypeError):
        optimizer_to_tensors(state)
