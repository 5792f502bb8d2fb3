"""The memory plan as a table, one line per card, and the reason of every choice."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from exp.config.schema import TrainConfig
from exp.hardware.machine import GIB
from exp.hardware.memory.card import Card
from exp.hardware.memory.choice import FRAGMENTATION, Choice
from exp.hardware.memory.work import Epoch
from exp.records import Derived
from exp.report.console import print_derived, print_table

COLUMNS = (
    *("profile", "fits", "memory GiB", "peak GiB", "of it", "micro-batch tokens"),
    *("checkpointing", "base", "TFLOP/epoch", "time/epoch"),
)
RIGHT = (2, 3, 5, 8, 9)


class Planned(Protocol):
    """A run on one card, as the commands work it out."""

    @property
    def card(self) -> Card: ...
    @property
    def choice(self) -> Choice: ...
    @property
    def epoch(self) -> Epoch: ...
    @property
    def flops(self) -> float: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def epochs(self) -> float: ...


def print_plans(
    plans: Sequence[Planned],
    config: TrainConfig,
    lengths: NDArray[np.int64],
    shared: int,
    note: str | None,
    console: Console | None = None,
) -> None:
    """Print one line per card, then why each came out so."""
    print_table(
        COLUMNS, [_row(plan) for plan in plans], title=_title(config), right=RIGHT, console=console
    )
    reasons = [
        (plan.card.name, reason.name, _words(reason), reason.reason)
        for plan in plans
        for reason in plan.choice.reasons
    ]
    print_table(("profile", "chosen", "value", "because"), reasons, console=console)
    _print_notes(plans, lengths, shared, note, console)


def print_plan(
    plan: Planned,
    config: TrainConfig,
    lengths: NDArray[np.int64],
    shared: int,
    note: str | None,
    console: Console | None = None,
) -> None:
    """Print one card's line, its choices, and every phase's memory by purpose."""
    print_table(COLUMNS, [_row(plan)], title=_title(config), right=RIGHT, console=console)
    print_derived(plan.choice.reasons, console=console)
    parts = [
        (phase.name, name, f"{size / GIB:.3f}")
        for phase in plan.choice.prediction.phases
        for name, size in [*phase.parts.items(), ("together", phase.total)]
        if size
    ]
    print_table(("phase", "what", "GiB"), parts, title="Memory", right=(2,), console=console)
    _print_notes([plan], lengths, shared, note, console)


def _row(plan: Planned) -> tuple[str, ...]:
    choice, card = plan.choice, plan.card
    memory = f"{card.memory_gib:.1f}"
    base = choice.settings.quantization
    return (
        card.name,
        "yes" if choice.fits else "no",
        memory if card.devices == 1 else f"{card.devices} x {memory}",
        f"{choice.prediction.peak / GIB:.2f}",
        choice.prediction.peak_phase.name,
        str(choice.settings.micro_batch_tokens),
        "yes" if choice.settings.checkpointing else "no",
        card.precision.name if base == "none" else f"{base} ({card.precision.name})",
        f"{plan.flops / 1e12:,.0f}",
        _duration(plan.seconds),
    )


def _print_notes(
    plans: Sequence[Planned],
    lengths: NDArray[np.int64],
    shared: int,
    note: str | None,
    console: Console | None,
) -> None:
    epoch = plans[0].epoch
    notes = [
        f"{len(lengths)} rows, {shared} shared tokens, own and completion: median "
        f"{int(np.median(lengths)) - shared}, longest {int(lengths.max()) - shared}",
        f"an epoch: {epoch.steps} steps, {epoch.tokens:,.0f} tokens computed, "
        f"{epoch.labels:,.0f} labels; the run takes {plans[0].epochs:.3g} epochs",
        f"peak: bytes in use on one device; {FRAGMENTATION:.0%} more and CUDA's own memory have to "
        "fit beside it",
        "time: at the profile's hardware.expected_flop_share of hardware.peak_tflops, training "
        "alone; - where the profile gives none",
    ]
    notes += [
        f"{plan.card.name}: type quantization={plan.choice.settings.quantization}; nothing is "
        "quantised unasked"
        for plan in plans
        if len(plans) > 1 and plan.choice.settings.quantization != "none"
    ]
    if note is not None:
        notes.insert(0, note)
    print_table(("notes",), [(line,) for line in notes], console=console)


def _title(config: TrainConfig) -> str:
    return (
        f"{config.model.name} on {config.task.name}, LoRA r={config.lora.r} on "
        f"{', '.join(config.lora.target_modules)}, {config.training.batch_size} examples a step"
    )


def _words(value: Derived) -> str:
    if isinstance(value.value, bool):
        return "yes" if value.value else "no"
    return str(value.value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
