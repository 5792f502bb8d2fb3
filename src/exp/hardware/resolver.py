"""From what a machine can do and what was asked of it to settings, each with its reason.

A pure function of values: no torch, no look at the machine. What must be tried on the machine is
asked of `probe`, and only when the answer matters.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from exp.config.schema import (
    Accelerator,
    Attention,
    Compile,
    DeviceMap,
    HardwareConfig,
    Precision,
)
from exp.errors import raise_collected
from exp.hardware import settings, storage
from exp.hardware.capability import Capability, Versions, format_capability
from exp.hardware.findings import Findings
from exp.hardware.placement import Placement, choose_placement
from exp.hardware.profiles import matching_profiles
from exp.hardware.settings import Prober
from exp.records import Derived


@dataclass(frozen=True, slots=True)
class Wishes:
    """What other groups of the config ask of the hardware."""

    compile: Compile = Compile.off
    quantization: str = "none"
    clips_gradients: bool = True


@dataclass(frozen=True, slots=True)
class ResolvedHardware:
    """Settings that this machine can fulfil; nothing in it is `auto`.

    `attention` is what works on the machine. Whether it is right for a model is tried with the
    model (`model/varlen_check.py`); a training goes on with SDPA if it is not.

    `precision` is that of the frozen base and of the arithmetic. Adapters are fp32 always: in bf16,
    updates smaller than half a unit in the last place would be lost.

    `peak_tflops` is that of one device in `precision`, None where it is not known. The last three
    come from the profile of the card, also where `auto` found it.
    """

    name: str
    accelerator: Accelerator
    devices: int
    device_name: str
    memory_gib: float
    precision: Precision
    attention: Attention
    tf32: bool
    fused_optimizer: bool
    compile: Compile
    quantization: str
    num_workers: int
    prefetch_batches: int
    cpu_threads: int
    reasons: tuple[Derived, ...]
    warnings: tuple[str, ...]
    quantize_to: str | None = None
    peak_tflops: float | None = None
    expected_flop_share: float | None = None
    device_map: DeviceMap | None = None
    max_memory: tuple[float, ...] = ()
    offload_gib: float | None = None

    @property
    def gradient_scaler(self) -> bool:
        """Whether losses are scaled so that small fp16 gradients do not become zero."""
        return self.precision is Precision.fp16


def resolve_hardware(
    capability: Capability,
    versions: Versions,
    probe: Prober,
    hardware: HardwareConfig,
    wishes: Wishes | None = None,
    profiles: Iterable[HardwareConfig] = (),
) -> ResolvedHardware:
    """Settle every hardware setting, or say all that cannot be met.

    Args:
        capability: What the machine can do.
        versions: What is installed.
        probe: Answers whether one step of an optional part works; called at most once for each.
        hardware: The profile with the overrides of the command line, its values in range.
        wishes: What other groups ask for. None: nothing.
        profiles: All profiles, by which `auto` calls the card that it found by its profile's name.

    Raises:
        HardwareError: The machine cannot do what was asked.
        MissingExtraError: What was asked for needs a package that is not installed.
        UserErrors: Several of these, together.
    """
    wishes = wishes or Wishes()
    findings = Findings(hardware)
    place = choose_placement(capability, versions, hardware, findings)
    if place is None:
        raise_collected(findings.errors)
    assert place is not None
    if hardware.compute_capability is None and place.accelerator is Accelerator.cuda:
        found = _find_profile(capability, place, profiles, findings)
        hardware = hardware if found is None else _filled(hardware, found)
    precision = settings.choose_precision(place, hardware, findings)
    resolved = ResolvedHardware(
        name=hardware.name,
        accelerator=place.accelerator,
        devices=place.num_devices,
        device_name=place.device_name,
        memory_gib=place.memory_gib,
        precision=precision,
        attention=settings.choose_attention(place, precision, versions, probe, hardware, findings),
        tf32=settings.choose_tf32(place, hardware, findings),
        fused_optimizer=settings.choose_fused_optimizer(
            precision, wishes.clips_gradients, hardware, findings
        ),
        compile=settings.choose_compile(
            place,
            precision,
            wishes.compile,
            probe,
            hardware,
            findings,
            storage.foreign_layers(hardware, wishes.quantization),
        ),
        quantization=storage.choose_quantization(
            place, precision, wishes.quantization, versions, probe, findings
        ),
        num_workers=settings.choose_num_workers(place, capability, hardware, findings),
        prefetch_batches=hardware.prefetch_batches,
        cpu_threads=settings.choose_cpu_threads(place, capability, hardware, findings),
        device_map=hardware.device_map,
        max_memory=storage.choose_max_memory(
            place, capability, hardware, wishes.quantization, findings
        ),
        offload_gib=None if hardware.device_map is None else hardware.offload_gib,
        # Last, since the arguments above are what fills them.
        reasons=tuple(findings.reasons),
        warnings=tuple(findings.warnings),
        quantize_to=hardware.quantize_to,
        # Of the 16-bit units; fp32 products run on others, or as TF32 at half their rate.
        peak_tflops=None if precision is Precision.fp32 else hardware.peak_tflops,
        expected_flop_share=hardware.expected_flop_share,
    )
    raise_collected(findings.errors)
    return resolved


def _find_profile(
    capability: Capability,
    place: Placement,
    profiles: Iterable[HardwareConfig],
    findings: Findings,
) -> HardwareConfig | None:
    """Say which profile the found card has, and which one would use more of the machine."""
    assert place.compute_capability is not None
    card = (
        f"{place.device_name}: compute capability {format_capability(place.compute_capability)}, "
        f"{place.memory_gib:.1f} GiB"
    )
    profiles = tuple(profiles)
    devices = replace(capability, cuda_devices=capability.cuda_devices[: place.num_devices])
    fitting = matching_profiles(devices, profiles)
    used = next((p for p in fitting if p.devices == place.num_devices), None)
    every = matching_profiles(capability, profiles)
    larger = next((p.name for p in every if p.devices > place.num_devices), None)
    if used is None:
        findings.because(
            "hardware.profile", None, f"no profile is made for {card}; what it can do decides"
        )
    else:
        findings.because("hardware.profile", used.name, f"the profile that fits {card}")
    if larger is not None:
        findings.warn(
            f"{place.num_devices} of {len(capability.cuda_devices)} CUDA devices used; "
            f"hardware={larger} uses more of them."
        )
    return used


def _filled(hardware: HardwareConfig, found: HardwareConfig) -> HardwareConfig:
    """Take from the found card's profile what no probe can tell, unless it was set."""
    return replace(
        hardware,
        compile=found.compile if hardware.compile is Compile.off else hardware.compile,
        quantize_to=hardware.quantize_to or found.quantize_to,
        peak_tflops=hardware.peak_tflops or found.peak_tflops,
        expected_flop_share=hardware.expected_flop_share or found.expected_flop_share,
    )
