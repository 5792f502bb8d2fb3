"""Settings under which a run fits: micro-batch tokens, checkpointing, and the base's storage.

The global batch stays as it is: a step is cut into more forwards, which leaves its gradient alone.
What costs least speed is tried first: fewer tokens per forward, as long as a forward still keeps
the device busy; then checkpointing, which costs a third more arithmetic; then small forwards; and
only where that is allowed a quantised base.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from exp.data.plan import BatchPlan
from exp.hardware.machine import GIB
from exp.hardware.memory.micro_batch import Forward, largest_forwards
from exp.hardware.memory.phases import Prediction, Request, predict
from exp.records import Derived

LADDER = (65536, 32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128, 1)
"""Tokens of a forward that are tried below what was set; the last one gives every example a forward
of its own."""

BUSY_TOKENS_ON_CPU = 512
BUSY_TOKENS_ON_GPU = 2048
"""Below so many tokens a forward, weights are read and kernels started for too little work."""

CUDA_CONTEXT_GIB = 0.8
"""What CUDA itself and the workspaces of its libraries take on a device, outside of plans."""
LIBRARIES_GIB = 1.0
"""What Python and its libraries take on a CPU."""
FRAGMENTATION = 0.05
"""Share of the peak that an allocator holds beyond what is in use."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was set.

    Attributes:
        most_tokens: Tokens of a forward at the most.
        checkpointing: None where the plan chooses.
        quantizations: Storages of the base that may be taken, the preferred one first.
    """

    most_tokens: int
    checkpointing: bool | None
    quantizations: tuple[str, ...] = ("none",)


@dataclass(frozen=True)
class Settings:
    """One way to run."""

    micro_batch_tokens: int
    checkpointing: bool
    quantization: str


@dataclass(frozen=True)
class Choice:
    """What was chosen, what it needs, and why.

    Attributes:
        budget: Bytes of the device that a run may use.
        fits: Whether the peak is within them.
    """

    settings: Settings
    prediction: Prediction
    budget: int
    fits: bool
    reasons: tuple[Derived, ...]


def budget_bytes(memory_gib: float, *, on_cpu: bool) -> int:
    """Bytes that a run may use, of the memory of a device or process."""
    reserved = LIBRARIES_GIB if on_cpu else CUDA_CONTEXT_GIB
    return max(0, int((memory_gib - reserved) * GIB / (1 + FRAGMENTATION)))


def choose(request: Request, wanted: Wanted, memory_gib: float) -> Choice:
    """Take the first settings that fit; if none does, those that need least."""
    budget = budget_bytes(memory_gib, on_cpu=request.on_cpu)

    @cache
    def forwards(tokens: int) -> Sequence[Forward]:
        return largest_forwards(with_tokens(request.plan, tokens))

    tried: list[tuple[Settings, Prediction]] = []
    for settings in _candidates(request, wanted):
        prediction = predict(
            request,
            forwards(settings.micro_batch_tokens),
            checkpointing=settings.checkpointing,
            quantization=settings.quantization,
            budget=budget,
        )
        tried.append((settings, prediction))
        if prediction.peak <= budget:
            break
    fits = tried[-1][1].peak <= budget
    settings, prediction = tried[-1] if fits else min(tried, key=lambda pair: pair[1].peak)
    reasons = _reasons(settings, prediction, tried, wanted, budget, fits=fits)
    return Choice(settings, prediction, budget, fits, reasons)


def with_tokens(plan: BatchPlan, tokens: int) -> BatchPlan:
    """The same plan, its steps cut by another limit of tokens."""
    return replace(plan, micro_batch_tokens=tokens)


def _candidates(request: Request, wanted: Wanted) -> Iterator[Settings]:
    busy = BUSY_TOKENS_ON_CPU if request.on_cpu else BUSY_TOKENS_ON_GPU
    most = wanted.most_tokens
    ladder = [most, *(tokens for tokens in LADDER if tokens < most)]
    ways = (False, True) if wanted.checkpointing is None else (wanted.checkpointing,)
    parts = [[t for t in ladder if t >= busy], [t for t in ladder if t < busy]]
    for quantization in wanted.quantizations:
        for part in parts:
            for checkpointing in ways:
                for tokens in part:
                    yield Settings(tokens, checkpointing, quantization)


def _reasons(
    settings: Settings,
    prediction: Prediction,
    tried: Sequence[tuple[Settings, Prediction]],
    wanted: Wanted,
    budget: int,
    *,
    fits: bool,
) -> tuple[Derived, ...]:
    room = f"{budget / GIB:.1f} GiB"
    batch = prediction.largest.batch
    if not fits:
        tokens = f"needs the least of all, and still more than {room}"
    elif settings.micro_batch_tokens == wanted.most_tokens:
        tokens = f"as set; the largest forward of up to {batch.tokens} tokens fits into {room}"
    elif batch.tokens <= settings.micro_batch_tokens and prediction.largest.alone:
        tokens = f"whole steps fit into {room} as one forward of up to {batch.tokens} tokens"
    else:
        tokens = f"the most that fits into {room}; a step then takes several forwards"
    if wanted.checkpointing is not None:
        recompute = "as set"
    elif settings.checkpointing:
        same = [(s, p) for s, p in tried if s.quantization == settings.quantization]
        least = min(p.peak for s, p in same if not s.checkpointing)
        recompute = f"without it at least {least / GIB:.1f} GiB are needed, and {room} are there"
    else:
        recompute = "activations fit, and computing them again costs a third more arithmetic"
    found = [
        Derived("training.micro_batch_tokens", settings.micro_batch_tokens, tokens),
        Derived("training.gradient_checkpointing", settings.checkpointing, recompute),
    ]
    if settings.quantization != wanted.quantizations[0]:
        peak = min(p.peak for s, p in tried if s.quantization == wanted.quantizations[0])
        why = f"without it at least {peak / GIB:.1f} GiB are needed, and {room} are there"
        found.append(Derived("quantization", settings.quantization, why))
    phase = prediction.peak_phase
    largest = sorted(phase.parts.items(), key=lambda part: -part[1])[:3]
    spent = ", ".join(f"{name} {size / GIB:.2f}" for name, size in largest)
    found.append(
        Derived("predicted peak, GiB", round(prediction.peak / GIB, 3), f"{phase.name}: {spent}")
    )
    return tuple(found)
