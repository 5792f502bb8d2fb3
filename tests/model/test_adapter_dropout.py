import pytest
import torch

from exp.model.adapter_dropout import InputMasks


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_share_of_dropped_elements_is_the_rounded_rate(rate: float) -> None:
    torch.manual_seed(0)
    masks = InputMasks(rate)
    kept = masks.kept(torch.zeros(1000, 400))
    assert masks.dropped_of_256 == round(rate * 256)
    assert 1 - kept.float().mean().item() == pytest.approx(masks.dropped_of_256 / 256, abs=0.003)


def test_scale_keeps_the_expected_value() -> None:
    masks = InputMasks(0.3)
    assert masks.scale * (256 - masks.dropped_of_256) / 256 == pytest.approx(1.0)


def test_layers_that_read_one_input_share_its_mask() -> None:
    masks = InputMasks(0.5)
    x = torch.zeros(64, 64)
    assert masks.kept(x) is masks.kept(x)


def test_another_input_of_the_same_shape_gets_another_mask() -> None:
    masks = InputMasks(0.5)
    first = masks.kept(torch.zeros(64, 64)).clone()
    assert not torch.equal(first, masks.kept(torch.zeros(64, 64)))


def test_torch_seed_fixes_the_masks() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(InputMasks(0.5).kept(torch.zeros(64, 64)))
    assert torch.equal(*drawn)


def test_smallest_rate_still_drops_something() -> None:
    assert InputMasks(1e-6).dropped_of_256 == 1
