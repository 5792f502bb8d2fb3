"""What is said of a plan that ends too early, and of an attention that a model cannot have."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exp.commands import fitting
from exp.commands.fitting import unreached_steps
from exp.commands.memory_watch import card_of_run
from exp.config.schema import Attention, HardwareConfig, Layout, TrainConfig, TrainingConfig
from exp.data.plan import BatchPlan
from exp.errors import ModelError
from exp.hardware.resolver import ResolvedHardware
from exp.model.varlen_check import AttentionChoice


def plan(epochs: float, steps: int | None) -> BatchPlan:
    lengths = np.full(20, 10, np.int64)
    return BatchPlan(
        lengths=lengths,
        num_labels=lengths,
        shared_tokens=0,
        layout=Layout.padded,
        batch_size=4,
        micro_batch_tokens=1000,
        micro_batch_size=None,
        epochs=epochs,
        max_steps=steps,
        seed=0,
    )


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, None), (1.0, 5), (1.0, 3), (3.0, 12)])
def test_nothing_is_said_where_the_steps_are_reached(epochs: float, steps: int | None) -> None:
    training = TrainingConfig(epochs=epochs, steps=steps)
    assert unreached_steps(training, plan(epochs, steps)) is None


def test_steps_behind_the_last_epoch_are_said_with_the_epochs_that_have_them() -> None:
    line = unreached_steps(TrainingConfig(epochs=1.0, steps=12), plan(1.0, 12))
    assert line is not None
    assert "training.epochs=1 ends after 5 steps" in line
    assert "training.epochs=3" in line
    assert plan(3.0, 12).num_steps == 12


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (AttentionChoice(Attention.sdpa, "outputs differ by 12.0%"), "outputs differ by 12.0%"),
        (AttentionChoice(Attention.flash), "at this model's shapes it gives what PyTorch's"),
    ],
)
def test_what_became_of_flash_is_a_derived_value(
    choice: AttentionChoice,
    reason: str,
    cpu_hardware: ResolvedHardware,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(fitting, "settle_attention", lambda *given: asked.append(given) or choice)
    flash = replace(cpu_hardware, attention=Attention.flash)
    foundation: Any = SimpleNamespace(hardware=flash)
    model: Any = SimpleNamespace()
    config = TrainConfig(hardware=HardwareConfig(name="a100", attention=Attention.auto))
    hardware, derived = fitting._with_attention(foundation, config, model, Layout.packed)
    assert asked == [(model, Layout.packed, Attention.flash, Attention.auto)]
    assert hardware == replace(flash, attention=choice.attention)
    assert [(each.name, each.value) for each in derived] == [
        ("attention of training", choice.attention.value)
    ]
    assert derived[0].reason.startswith(reason)


def test_sdpa_is_not_tried(cpu_hardware: ResolvedHardware, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModelError("it was tried")

    monkeypatch.setattr(fitting, "settle_attention", fail)
    foundation: Any = SimpleNamespace(hardware=cpu_hardware)
    found = fitting._with_attention(foundation, TrainConfig(), None, Layout.packed)  # type: ignore[arg-type]
    assert found == (cpu_hardware, ())


@pytest.mark.parametrize("attention", [Attention.sdpa, Attention.flash])
def test_the_memory_plan_of_a_run_knows_its_attention(
    attention: Attention, cpu_hardware: ResolvedHardware
) -> None:
    card = card_of_run(TrainConfig(), replace(cpu_hardware, attention=attention))
    assert card.varlen is (attention is Attention.flash)
