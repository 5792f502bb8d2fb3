"""A step that does not fit is computed again in smaller micro-batches, as if planned so."""

import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from exp.config.groups import open_library
from exp.config.preflight import preflight
from exp.config.schema import Layout, LoraConfig
from exp.data.plan import BatchPlan, Step
from exp.errors import HardwareError
from exp.model.lora import adapter_weights
from exp.training.checkpoint import find_checkpoint, read_checkpoint
from exp.training.module import LoraModule
from exp.training.out_of_memory import Shortage, halved, is_out_of_memory, refuse_step

Build = Callable[..., Any]
Weights = dict[str, Tensor]

ERRORS: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    "python": MemoryError,
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `gemm`"),
}


def fail_at(
    monkeypatch: pytest.MonkeyPatch,
    places: set[tuple[int, int]],
    error: Callable[[], BaseException] = ERRORS["cuda"],
    after_backward: bool = False,
) -> list[tuple[int, int]]:
    """Run out of memory at (step, micro-batch), once each; return the list of where it happened."""
    backward, happened = LoraModule._backward, []

    def failing(self: LoraModule, micro_batch: Any, batch: Any, index: int) -> Tensor:
        place = (batch.step.number, index)
        fails = place in places and place not in happened
        if fails:
            happened.append(place)
        if fails and not after_backward:
            raise error()
        loss = backward(self, micro_batch, batch, index)
        if fails:
            raise error()
        return loss

    monkeypatch.setattr(LoraModule, "_backward", failing)
    return happened


def plan_halved(monkeypatch: pytest.MonkeyPatch, times: Callable[[int], int]) -> None:
    """Let the plan itself cut step n `times(n)` times smaller: the data loader serves it so."""
    planned = BatchPlan.step
    monkeypatch.setattr(
        BatchPlan, "step", lambda self, number: halved(planned(self, number), times(number))
    )


def trained(run: Any) -> Weights:
    run.fit()
    return adapter_weights(run.model)


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def losses(run: Any) -> list[float]:
    return [values["train/loss"] for _, _, values in run.records if "train/loss" in values]


DROPOUT = LoraConfig(r=4, target_modules=["all-linear"], dropout=0.3)
PLACES = [(step, index) for step in (0, 2, 3) for index in (0, 1)]
SETTINGS: dict[str, Any] = {"steps": 5, "micro_batch_size": 4}


@pytest.mark.parametrize(
    ("place", "after_backward"),
    [
        ((2, 1), False),
        *(pytest.param(place, True, marks=pytest.mark.thorough) for place in PLACES),
    ],
    ids=str,
)
def test_the_adapter_is_that_of_the_smaller_micro_batch_from_that_step_on(
    training: Build, monkeypatch: pytest.MonkeyPatch, place: tuple[int, int], after_backward: bool
) -> None:
    """Step 3 has two examples only, in one micro-batch: nothing fails at its second."""
    with monkeypatch.context() as patch:
        happened = fail_at(patch, {place}, after_backward=after_backward)
        found = trained(training(lora=DROPOUT, **SETTINGS))
    if not happened:
        assert place == (3, 1)
        return
    with monkeypatch.context() as patch:
        plan_halved(patch, lambda step: int(step >= place[0]))
        assert same(found, trained(training(lora=DROPOUT, **SETTINGS)))
    assert not same(found, trained(training(lora=DROPOUT, **SETTINGS)))


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("cuda", Layout.shared_prefix),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in (
                *(("cuda", layout) for layout in Layout if layout is not Layout.shared_prefix),
                *((kind, Layout.shared_prefix) for kind in ERRORS if kind != "cuda"),
            )
        ),
    ],
)
def test_the_loss_is_that_of_a_run_that_never_ran_out(
    training: Build, monkeypatch: pytest.MonkeyPatch, kind: str, layout: Layout
) -> None:
    calm = training(layout=layout, **SETTINGS)
    calm.fit()
    with monkeypatch.context() as patch:
        happened = fail_at(patch, {(1, 1), (2, 0)}, ERRORS[kind], after_backward=True)
        run = training(layout=layout, **SETTINGS)
        run.fit()
    assert happened == [(1, 1), (2, 0)]
    assert losses(run) == pytest.approx(losses(calm), abs=1e-6)
    left, right = adapter_weights(run.model), adapter_weights(calm.model)
    assert max(float((left[n] - right[n]).abs().max()) for n in left) <= 1e-6


@pytest.mark.thorough
def test_each_occurrence_halves_once_more(training: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, {(1, 0), (1, 1), (4, 2)})
        run = training(lora=DROPOUT, steps=5, micro_batch_size=7)
        found = trained(run)
    points = [
        (step, values["train/micro_batch_halvings"])
        for step, _, values in run.records
        if "train/micro_batch_halvings" in values
    ]
    assert points == [(1, 1), (1, 2), (4, 3)]
    with monkeypatch.context() as patch:
        plan_halved(patch, lambda step: (0, 2, 2, 2, 3)[step])
        expected = trained(training(lora=DROPOUT, steps=5, micro_batch_size=7))
    assert same(found, expected)


@pytest.mark.thorough
def test_what_was_left_of_the_failed_attempt_would_be_seen(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = trained(training(**SETTINGS))
    with monkeypatch.context() as patch:
        fail_at(patch, {(2, 1)})
        patch.setattr(torch.optim.Optimizer, "zero_grad", _zero_before_a_step_only())
        assert not close(trained(training(**SETTINGS)), right)


def _zero_before_a_step_only() -> Callable[..., None]:
    """Skip every second call in a row: the one after a failed attempt, and its repetition."""
    original = torch.optim.Optimizer.zero_grad
    steps: list[int] = []

    def zero_grad(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:
        taken = max((int(s["step"]) for s in self.state.values()), default=0)
        if taken not in steps:
            steps.append(taken)
            original(self, set_to_none)

    return zero_grad


def close(left: Weights, right: Weights) -> bool:
    return max(float((left[n] - right[n]).abs().max()) for n in left) <= 1e-6


@pytest.mark.thorough
def test_the_order_of_the_data_stays_as_planned(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, tuple[str, ...]]] = []
    backward = LoraModule._backward

    def watching(self: LoraModule, micro_batch: Any, batch: Any, index: int) -> Tensor:
        loss = backward(self, micro_batch, batch, index)
        seen.append((batch.step.number, micro_batch.example_ids))
        return loss

    def orders() -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for step, ids in seen:
            found.setdefault(step, []).extend(ids)
        seen.clear()
        return found

    monkeypatch.setattr(LoraModule, "_backward", watching)
    training(**SETTINGS).fit()
    planned = orders()
    fail_at(monkeypatch, {(2, 0)})
    training(**SETTINGS).fit()
    assert orders() == planned


@pytest.mark.thorough
def test_a_resumed_run_keeps_the_smaller_micro_batches(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, {(2, 0)})
        whole = trained(training(lora=DROPOUT, **SETTINGS))
        fail_at(patch, {(2, 0)})
        first = training(lora=DROPOUT, **SETTINGS, validate_every=1.0)
        first.fit()
    # The first epoch has four steps; its checkpoint is the first of two.
    start = read_checkpoint(first.run.checkpoint(4))
    resumed = training(lora=DROPOUT, start=start, **SETTINGS)
    assert same(trained(resumed), whole)
    assert find_checkpoint(resumed.run, "last").name == "step_000005"


def test_a_single_example_that_does_not_fit_is_an_error_with_advice(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, {(1, 2)})
    with pytest.raises(HardwareError) as caught:
        training(steps=5, micro_batch_size=1).fit()
    assert "Step 2: example row-" in caught.value.what
    assert "Tried to allocate 2.00 GiB" in caught.value.what
    assert caught.value.fix is not None
    for way in ("gradient_checkpointing=true", "quantization=nf4", "max_length_tokens"):
        assert way in caught.value.fix


SINGLE = Shortage(("row-1",), 900, "CUDA out of memory.")
SPLITTABLE = Shortage(("row-1", "row-2"), 900, "CUDA out of memory.")


def refused(words: tuple[str, ...], shortage: Shortage | None) -> HardwareError:
    (trial,) = preflight("train", words, open_library()).trials
    with pytest.raises(HardwareError) as caught:
        refuse_step(step_of(1), shortage, trial.config)
    return caught.value


@pytest.mark.parametrize("shortage", [SINGLE, SPLITTABLE, None], ids=["own", "whole", "other"])
@pytest.mark.parametrize(
    "words",
    [(), ("hardware=t4x2", "training.layout=padded"), ("hardware=a100", "lora.r=4")],
    ids=["defaults", "two cards", "one card"],
)
@pytest.mark.thorough
def test_whatever_is_advised_composes_beside_what_was_asked_for(
    words: tuple[str, ...], shortage: Shortage | None
) -> None:
    fix = refused(words, shortage).fix or ""
    ways = fix.split(", or ")
    assert ways[0] == "training.gradient_checkpointing=true"
    assert "micro_batch" not in fix
    for way in ways:
        own = way.split()
        keys = {word.partition("=")[0] for word in own}
        kept = [word for word in words if word.partition("=")[0] not in keys]
        (trial,) = preflight("train", [*kept, *own], open_library()).trials
        assert trial.warnings == (), way


@pytest.mark.thorough
def test_a_card_is_quantised_for_as_its_profile_says_and_others_to_nf4() -> None:
    kinds = [
        re.findall(r"quantization=(\w+)", refused(words, SINGLE).fix or "")
        for words in (("hardware=a100",), ("hardware=t4",), (), ("quantization=nf4",))
    ]
    assert kinds == [["int8"], ["nf4"], ["nf4"], []]


@pytest.mark.parametrize(
    ("shortage", "who"),
    [
        (SINGLE, "example row-1 alone, 900 tokens,"),
        (SPLITTABLE, "a single example of another process"),
        (None, "a single example of another process"),
    ],
)
def test_only_an_example_that_was_alone_is_named(shortage: Shortage | None, who: str) -> None:
    assert refused((), shortage).what.startswith(f"Step 1: {who} does not fit into memory")


def test_other_errors_are_not_taken_for_it(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, {(1, 0)}, lambda: RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        training(**SETTINGS).fit()


def test_the_failed_attempt_holds_no_tensors(
    training: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the failing frame held is gone before the step is tried again."""
    held: list[weakref.ref[Tensor]] = []
    backward = LoraModule._backward

    def hoarding(self: LoraModule, micro_batch: Any, batch: Any, index: int) -> Tensor:
        if not held:
            activation = torch.zeros(1000)
            held.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert held[0]() is None
        return backward(self, micro_batch, batch, index)

    monkeypatch.setattr(gc, "collect", lambda: 0)  # reference counting alone has to do it
    monkeypatch.setattr(LoraModule, "_backward", hoarding)
    training(**SETTINGS).fit()
    assert held


@pytest.mark.thorough
def test_it_is_said_once_per_occurrence(
    training: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_at(monkeypatch, {(2, 1)})
    training(**SETTINGS).fit()
    said = [r.message for r in caplog.records if r.name == "exp.training.module"]
    assert len(said) == 1
    assert said[0].startswith("step 3 did not fit into memory (CUDA out of memory. Tried to")
    assert said[0].endswith("To begin so: training.micro_batch_size=2")


def step_of(*sizes: int) -> Step:
    members = iter(range(99))
    parts = tuple(tuple(next(members) for _ in range(size)) for size in sizes)
    return Step(0, 0, parts, num_labels=1, num_examples=sum(sizes))


@pytest.mark.parametrize(
    ("sizes", "times", "expected"),
    [
        ((4, 3), 1, [2, 2, 2, 1]),
        ((1,), 1, [1]),
        ((5, 1), 1, [3, 2, 1]),
        ((7,), 2, [2, 2, 2, 1]),
        ((7,), 3, [1] * 7),
        ((), 1, []),
        ((4, 3), 0, [4, 3]),
    ],
)
def test_halving_splits_each_micro_batch_and_moves_no_example(
    sizes: tuple[int, ...], times: int, expected: list[int]
) -> None:
    step = step_of(*sizes)
    smaller = halved(step, times)
    assert [len(part) for part in smaller.micro_batches] == expected
    assert sum(smaller.micro_batches, ()) == sum(step.micro_batches, ())


@pytest.mark.parametrize("error", [make() for make in ERRORS.values()])
def test_failed_allocations_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("out of memory")])
def test_other_failures_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)
