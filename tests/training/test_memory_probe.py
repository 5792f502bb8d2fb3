"""The probe computes the largest forward, and leaves no trace in the run."""

from typing import Any

import lightning
import pytest
import torch

from exp.config.schema import Layout, LoraConfig
from exp.hardware.memory.micro_batch import Forward, largest_forwards
from exp.model.lora import adapter_weights
from exp.training import memory_probe
from exp.training.fit import fit
from exp.training.memory_probe import MemoryProbe

DROPOUT = LoraConfig(r=4, target_modules=["all-linear"], dropout=0.2)


def trained(run: Any, probe: Forward | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    fit(
        run.model,
        run.data,
        config=run.config,
        hardware=run.hardware,
        run=run.run,
        validate=dict,
        record=lambda step, epoch, values: run.records.append((step, epoch, dict(values))),
        base_name="tiny",
        identity={"configuration": "same"},
        probe=probe,
    )
    return adapter_weights(run.model)


@pytest.mark.parametrize("layout", [Layout.shared_prefix, Layout.padded])
@pytest.mark.thorough
def test_a_probed_run_ends_with_the_same_bits(training: Any, layout: Layout) -> None:
    settings = {"steps": 3, "layout": layout, "lora": DROPOUT}
    plain, probed = training(**settings), training(**settings)
    largest = largest_forwards(probed.data.plan)[0]
    expected, got = trained(plain, None), trained(probed, largest)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    losses = [[values["train/loss"] for *_, values in run.records] for run in (plain, probed)]
    assert losses[0] == losses[1]


class Watched(MemoryProbe):
    """Looks at what the probe left behind, and at random numbers."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        torch.manual_seed(5)
        super().on_train_start(trainer, pl_module)
        self.drawn = float(torch.rand(()))
        self.gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]


@pytest.mark.parametrize("runs_out", [False, True])
@pytest.mark.thorough
def test_the_probe_leaves_no_gradient_and_no_drawn_number(
    training: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    runs_out: bool,
) -> None:
    def no_memory(*_: object) -> None:
        torch.rand(3)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    run, watched = training(steps=1, lora=DROPOUT), []

    def build(forward: Forward) -> Watched:
        watched.append(Watched(forward))
        return watched[0]

    monkeypatch.setattr("exp.training.fit.MemoryProbe", build)
    if runs_out:
        monkeypatch.setattr(memory_probe.MemoryProbe, "_compute", no_memory)
    trained(run, largest_forwards(run.data.plan)[0])
    torch.manual_seed(5)
    assert watched[0].drawn == float(torch.rand(()))
    assert watched[0].gradients == []
    assert watched[0].fits is not runs_out
    assert ("does not fit" in caplog.text) is runs_out
