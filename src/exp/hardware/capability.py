"""What a machine can do, as plain values: facts, versions, and what was tried. Knows no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

ComputeCapability = tuple[int, int]

BITSANDBYTES = ("nf4", "int8")
"""Quantisations that bitsandbytes makes of any checkpoint, while it is loaded."""

CHECKPOINT_QUANTIZATIONS = {"gptq": ("gptqmodel", "optimum"), "awq": ("gptqmodel",)}
"""Quantisations that a checkpoint was published in, and the packages that read it."""


class Probe(Enum):
    """Optional parts that are believed only after one forward and backward on this machine."""

    flash_attention = "flash_attention"
    nf4 = "nf4"
    int8 = "int8"
    compile = "compile"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Whether one step of an optional part worked, and if not, the first line of why."""

    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One CUDA device, as the driver reports it.

    `native_bf16` leaves emulation out: torch emulates bf16 on a T4 and then calls it supported.
    """

    name: str
    compute_capability: ComputeCapability
    memory_gib: float
    native_bf16: bool


@dataclass(frozen=True, slots=True)
class Capability:
    """The processors of one machine.

    `num_cpus` and `memory_gib` are what this process may use, not what the machine has: a container
    limits both. `nvidia_driver` tells a machine without a GPU from a torch without CUDA.
    """

    num_cpus: int
    memory_gib: float
    cpu_native_bf16: bool
    cuda_devices: tuple[CudaDevice, ...] = ()
    nvidia_driver: bool = False


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of what the choices depend on; None where a package is not installed.

    `cuda` is the CUDA that torch was built with, None for a CPU build. `cuda_archs` are the
    architectures that the build carries kernels for, such as sm_90 (binary) or compute_90 (PTX).
    """

    torch: str
    transformers: str
    cuda: str | None = None
    cuda_archs: tuple[str, ...] = ()
    bitsandbytes: str | None = None
    flash_attn: str | None = None
    gptqmodel: str | None = None
    optimum: str | None = None


def format_capability(capability: ComputeCapability) -> str:
    """Write a compute capability as NVIDIA does, `12.0`."""
    return f"{capability[0]}.{capability[1]}"


def parse_capability(text: str) -> ComputeCapability | None:
    """Read `12.0`; None if it is not of that form."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        return None
    return int(major), int(minor)


# The first CUDA release that knows a compute capability, by the release notes of the CUDA toolkit.
# PTX of an older build might be translated for the card, but cuBLAS and cuDNN of that release hold
# nothing for it, so older is refused.
MINIMUM_CUDA: dict[ComputeCapability, tuple[int, int]] = {
    (7, 5): (10, 0),
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (10, 3): (12, 9),
    (12, 0): (12, 8),
    (12, 1): (12, 9),
}


def minimum_cuda(capability: ComputeCapability) -> tuple[int, int]:
    """Return the oldest CUDA that a torch build for this card can have.

    A binary also runs on the later minor capabilities of its major one, so the newest listed
    capability that is not above the card's decides.
    """
    same_major = [known for known in MINIMUM_CUDA if known[0] == capability[0]]
    reachable = [known for known in same_major if known <= capability]
    if reachable:
        return min(MINIMUM_CUDA[known] for known in reachable)
    return MINIMUM_CUDA[max(MINIMUM_CUDA)] if capability > max(MINIMUM_CUDA) else (0, 0)


def has_kernels_for(archs: Sequence[str], capability: ComputeCapability) -> bool:
    """Whether a build with these architectures runs on the card.

    Binaries (sm_86) run on the same major capability from their minor one upwards; PTX
    (compute_80) is translated for any later card. No CUDA architecture at all means not known.
    """
    known = [arch for arch in archs if arch.startswith(("sm_", "compute_"))]
    if not known:
        return True
    for arch in known:
        kind, _, digits = arch.partition("_")
        # The letter of sm_90a and sm_120f marks kernels that run on that capability (family) alone.
        number = digits.rstrip("af")
        built_for = int(number[:-1]), int(number[-1])
        if digits.endswith("a"):
            if built_for == capability:
                return True
        elif kind == "compute":
            if built_for <= capability:
                return True
        elif built_for[0] == capability[0] and built_for[1] <= capability[1]:
            return True
    return False
