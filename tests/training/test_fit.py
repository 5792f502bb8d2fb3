from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import PeftModel

from exp.config.schema import Attention, Layout
from exp.errors import CheckpointError
from exp.hardware.resolver import ResolvedHardware
from exp.model.lora import adapter_weights, load_lora
from exp.training.checkpoint import find_checkpoint, read_checkpoint

Build = Callable[..., Any]

IDS = torch.arange(20).unsqueeze(0)


@pytest.mark.parametrize("stop_after", [1, pytest.param(9, marks=pytest.mark.thorough)])
def test_a_resumed_run_ends_with_the_same_bits(training: Build, stop_after: int) -> None:
    # Epochs have four steps, so there is a checkpoint behind every step.
    unbroken = training(validate_every=0.25, keep_checkpoints=99)
    unbroken.fit()
    start = read_checkpoint(unbroken.run.checkpoint(stop_after))
    resumed = training(start=start)
    assert resumed.fit().steps == 10
    expected, found = adapter_weights(unbroken.model), adapter_weights(resumed.model)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    steps = [step for step, _, values in resumed.records if "train/loss" in values]
    assert steps == list(range(stop_after + 1, 11))


def test_a_checkpoint_of_another_run_is_refused(training: Build) -> None:
    first = training(steps=1)
    first.fit()
    start = read_checkpoint(find_checkpoint(first.run, "last"))
    start.state["identity"]["configuration"] = "other"
    with pytest.raises(CheckpointError, match="another configuration"):
        training(start=start).fit()


def test_the_checkpoint_folder_loads_here_and_in_plain_peft(training: Build) -> None:
    run = training(steps=3)
    run.fit()
    folder = find_checkpoint(run.run, "last")

    @torch.no_grad()
    def logits(model: PeftModel) -> torch.Tensor:
        model.get_base_model().set_attn_implementation("sdpa")
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
        return found

    def untouched_base() -> Any:
        return training().model.unload()

    expected = logits(run.model)
    assert torch.equal(logits(load_lora(untouched_base(), folder)), expected)
    plain = logits(PeftModel.from_pretrained(untouched_base(), folder))
    torch.testing.assert_close(plain, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layout", [Layout.shared_prefix, Layout.packed], ids=lambda each: each.name
)
@pytest.mark.thorough
def test_a_run_by_flash_attention_takes_the_steps_that_one_by_sdpa_takes(
    training: Build,
    layout: Layout,
    cpu_hardware: ResolvedHardware,
    plain_flash_attn: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import flash_attn

    calls: list[int] = []

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return plain_flash_attn(*args, **options)

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", counted)

    def losses(attention: Attention) -> list[float]:
        hardware = replace(cpu_hardware, attention=attention)
        run = training(layout=layout, steps=3, micro_batch_size=4, hardware=hardware)
        run.fit()
        return [values["train/loss"] for _, _, values in run.records if "train/loss" in values]

    expected = losses(Attention.sdpa)
    assert not calls
    assert losses(Attention.flash) == pytest.approx(expected, rel=1e-4)
    # A call in each of two layers, for each of two micro-batches in each of three steps.
    assert len(calls) == 2 * 2 * 3


def test_the_scaler_of_fp16_goes_on_from_its_state(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = "lightning.pytorch.plugins.precision.Precision."
    state = {"scale": 32.0, "_growth_tracker": 7}
    monkeypatch.setattr(f"{plugin}state_dict", lambda self: state)
    first = training(steps=4, validate_every=2)
    first.fit()
    loaded: list[object] = []
    monkeypatch.setattr(f"{plugin}load_state_dict", lambda self, given: loaded.append(given))
    start = read_checkpoint(find_checkpoint(first.run, "last"))
    training(steps=4, validate_every=2, start=replace(start, step=2)).fit()
    assert loaded == [state]
