"""What a step does: accumulation, clipping, learning rate, modes, dropout; all through `fit`."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from exp.config.schema import Layout, LoraConfig, LossOn, Precision
from exp.errors import TrainingError
from exp.model.lora import adapter_weights
from exp.training.module import LoraModule
from exp.training.scheduler import learning_rate_factor

Build = Callable[..., Any]
Weights = dict[str, Tensor]

# 23 examples in steps of seven: the last step of each epoch has two, and no cut below divides
# every step evenly.
CUTS: dict[str, dict[str, Any]] = {
    "one forward": {"micro_batch_size": 7},
    "6 + 1": {"micro_batch_size": 6},
    "5 + 2": {"micro_batch_size": 5},
    "4 + 3": {"micro_batch_size": 4},
    "3 + 3 + 1": {"micro_batch_size": 3},
    "2 + 2 + 2 + 1": {"micro_batch_size": 2},
    "singly": {"micro_batch_size": 1},
    "by 35 tokens": {"micro_batch_tokens": 35},
    "by 60 tokens": {"micro_batch_tokens": 60},
    "packed by 77 tokens": {"layout": Layout.packed, "micro_batch_tokens": 77},
    "padded, one forward": {"layout": Layout.padded, "micro_batch_size": 7},
    "padded, by 70 tokens": {"layout": Layout.padded, "micro_batch_tokens": 70},
    "recomputed, 3 + 3 + 1": {"micro_batch_size": 3, "gradient_checkpointing": True},
}


def largest_difference(left: Weights, right: Weights) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def trained(run: Any) -> Weights:
    assert run.fit().steps == run.config.training.steps
    return adapter_weights(run.model)


_whole: dict[LossOn, Weights] = {}


@pytest.mark.parametrize(
    ("cut", "loss"),
    [
        ("3 + 3 + 1", LossOn.completion),
        ("by 35 tokens", LossOn.completion),
        ("padded, by 70 tokens", LossOn.text),
        *(
            pytest.param(cut, LossOn.completion, marks=pytest.mark.thorough)
            for cut in CUTS
            if cut not in ("3 + 3 + 1", "by 35 tokens")
        ),
        pytest.param("singly", LossOn.text, marks=pytest.mark.thorough),
    ],
)
def test_the_cut_into_micro_batches_does_not_change_training(
    training: Build, cut: str, loss: LossOn
) -> None:
    if loss not in _whole:
        _whole[loss] = trained(training(layout=Layout.padded, micro_batch_size=99, loss=loss))
    run = training(loss=loss, **CUTS[cut])
    assert largest_difference(trained(run), _whole[loss]) <= 1e-6


@pytest.mark.thorough
def test_a_mean_per_micro_batch_would_be_seen(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divide each micro-batch by its own labels and their number, as usual accumulation does."""
    right = trained(training(micro_batch_size=3))
    backward = LoraModule._backward

    def as_usual(self: LoraModule, micro_batch: Any, batch: Any, index: int) -> Tensor:
        labels = len(micro_batch.labels) * len(batch.batches)
        step = replace(batch.step, num_labels=labels)
        return backward(self, micro_batch, replace(batch, step=step), index)

    monkeypatch.setattr(LoraModule, "_backward", as_usual)
    assert largest_difference(trained(training(micro_batch_size=3)), right) > 1e-4


def test_training_equals_a_loop_of_plain_torch(training: Build) -> None:
    run = training(layout=Layout.packed, micro_batch_size=3)
    found = trained(run)

    plain = training()
    model, config = plain.model, plain.config
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)
    losses, norms = [], []
    for number in range(plain.data.plan.num_steps):
        step = plain.data.plan.step(number)
        optimizer.zero_grad()
        total = torch.zeros(())
        for row in (row for part in step.micro_batches for row in part):
            example = plain.store[row]
            ids = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
            first = len(example.prompt_ids)
            logits = model(input_ids=ids).logits[0, first - 1 : -1]
            total = total + torch.nn.functional.cross_entropy(
                logits, ids[0, first:], reduction="sum"
            )
        (total / step.num_labels).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        factor = learning_rate_factor(number, plain.data.plan.num_steps, config.scheduler)
        optimizer.param_groups[0]["lr"] = config.optimizer.lr * factor
        optimizer.step()
        losses.append(float(total.detach()) / step.num_labels)
    assert largest_difference(found, adapter_weights(model)) <= 1e-6
    logged = [values for _, _, values in run.records if "train/loss" in values]
    assert [values["train/loss"] for values in logged] == pytest.approx(losses, rel=1e-5)
    assert [values["train/gradient_norm"] for values in logged] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 1.0  # so clipping did something


def test_without_a_limit_gradients_are_not_clipped(training: Build) -> None:
    limited = trained(training(steps=2))
    huge = trained(training(steps=2, gradient_clip_norm=1e9))
    unlimited = trained(training(steps=2, gradient_clip_norm=None))
    assert largest_difference(huge, unlimited) == 0
    assert largest_difference(huge, limited) > 0


@pytest.mark.parametrize("micro_batch_size", [1, 7])
def test_the_learning_rate_is_its_closed_form_once_per_step(
    training: Build, micro_batch_size: int
) -> None:
    run = training(micro_batch_size=micro_batch_size)
    run.fit()
    rates = [values["train/lr"] for _, _, values in run.records if "train/lr" in values]
    peak = run.config.optimizer.lr
    expected = [peak * learning_rate_factor(n, 10, run.config.scheduler) for n in range(10)]
    assert rates == pytest.approx(expected)


def test_every_targeted_module_is_alive_after_five_steps(training: Build) -> None:
    for settings in ({}, {"gradient_checkpointing": True}):
        weights = trained(training(steps=5, **settings))
        alive = [name for name, t in weights.items() if "lora_B" in name and bool((t != 0).any())]
        assert len(alive) == 2 * 7


def test_every_module_is_in_train_mode_while_training(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[bool] = []
    backward = LoraModule._backward

    def watch(self: LoraModule, *args: Any) -> Tensor:
        modes.append(all(module.training for module in self.modules()))
        return backward(self, *args)

    monkeypatch.setattr(LoraModule, "_backward", watch)
    run = training(steps=4, validate=lambda: (run.model.eval(), run.model.train(), {})[-1])
    run.fit()
    assert len(modes) >= 4
    assert all(modes)


@pytest.mark.thorough
def test_dropout_follows_from_seed_step_and_micro_batch(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = LoraConfig(r=4, target_modules=["all-linear"], dropout=0.3)
    first = trained(training(lora=lora, micro_batch_size=3))
    torch.manual_seed(77)
    assert largest_difference(trained(training(lora=lora, micro_batch_size=3)), first) == 0
    other = training(lora=lora, micro_batch_size=3)
    monkeypatch.setattr(LoraModule, "_seed_dropout", lambda *_: torch.manual_seed(5))
    assert largest_difference(trained(other), first) > 0


def test_a_base_of_16_bits_trains_fp32_adapters(training: Build) -> None:
    cpu = training().hardware
    run = training(hardware=replace(cpu, precision=Precision.bf16), steps=3)
    weights = trained(run)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    base = [p for n, p in run.model.named_parameters() if "lora_" not in n]
    assert {parameter.dtype for parameter in base} == {torch.bfloat16}
    exact = trained(training(steps=3))
    errors = [float((weights[n] - t).norm() / t.norm()) for n, t in islice(exact.items(), 50)]
    assert max(errors) < 0.5


def test_points_are_logged_at_every_nth_step_and_the_last(training: Build) -> None:
    run = training(log_every_steps=4)
    run.fit()
    assert [step for step, _, values in run.records if "train/loss" in values] == [4, 8, 10]


def test_a_loss_that_is_no_number_ends_the_run_and_says_what_to_try(training: Build) -> None:
    config = training(steps=4).config
    run = training(config=replace(config, optimizer=replace(config.optimizer, lr=1e30)))
    with pytest.raises(TrainingError, match=r"nan at step [234]: training has diverged") as caught:
        run.fit()
    assert caught.value.exit_code == 1
    assert caught.value.fix == "optimizer.lr=2.5e+29"


def test_a_run_whose_every_step_overflows_ends(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraModule, "gradient_scale", 0.5)
    with pytest.raises(TrainingError, match="overflow in fp16 at every scale"):
        training(steps=2).fit()


def test_the_scale_of_fp16_gradients_is_logged(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraModule, "gradient_scale", 1024.0)
    run = training(steps=1)
    run.fit()
    assert run.records[0][2]["train/gradient_scale"] == 1024.0
