"""Which processors a run computes on, and whether they are what its profile asks for."""

from collections import Counter
from dataclasses import dataclass

from exp.config.schema import Accelerator, HardwareConfig
from exp.hardware.capability import (
    Capability,
    ComputeCapability,
    CudaDevice,
    Versions,
    format_capability,
    has_kernels_for,
    minimum_cuda,
    parse_capability,
)
from exp.hardware.findings import Findings
from exp.hardware.profiles import MEMORY_TOLERANCE


@dataclass(frozen=True, slots=True)
class Placement:
    """The processors of a run. `compute_capability` is the lowest among them; None on the CPU."""

    accelerator: Accelerator
    num_devices: int
    device_name: str
    memory_gib: float
    native_bf16: bool
    compute_capability: ComputeCapability | None = None

    def __str__(self) -> str:
        if self.compute_capability is None:
            return "the CPU"
        return (
            f"{self.device_name} (compute capability {format_capability(self.compute_capability)})"
        )


def choose_placement(
    capability: Capability, versions: Versions, hardware: HardwareConfig, findings: Findings
) -> Placement | None:
    """Choose CPU or CUDA devices; None if the wish cannot be met, with the errors in `findings`."""
    wanted = hardware.compute_capability
    if hardware.accelerator is Accelerator.cpu:
        findings.because("hardware.accelerator", "cpu", "as set")
        return _place_on_cpu(capability, hardware, findings)
    if capability.cuda_devices:
        return _place_on_cuda(capability, versions, hardware, findings)
    if hardware.accelerator is Accelerator.cuda or wanted is not None:
        _refuse_missing_cuda(capability, versions, hardware, findings)
        return None
    if capability.nvidia_driver:
        findings.warn(
            f"There is an NVIDIA driver, but {_cuda_obstacle(versions)}; the run uses the CPU."
        )
    findings.because("hardware.accelerator", "cpu", "auto found no CUDA device")
    return _place_on_cpu(capability, hardware, findings)


def _place_on_cpu(
    capability: Capability, hardware: HardwareConfig, findings: Findings
) -> Placement | None:
    num_errors = len(findings.errors)
    if hardware.devices > capability.num_cpus:
        findings.refuse(
            f"{hardware.devices} processes on the CPU need a core each; this process may use "
            f"{capability.num_cpus}.",
            f"hardware.devices={hardware.devices}",
            "hardware.devices=1",
        )
    memory = capability.memory_gib / hardware.devices
    if hardware.memory_gib is not None and hardware.memory_gib > memory:
        findings.refuse(
            f"hardware.memory_gib is {hardware.memory_gib:.1f}; each process on the CPU may use "
            f"{memory:.1f} GiB.",
            f"hardware.memory_gib={hardware.memory_gib}",
            "hardware.memory_gib=null",
        )
    if len(findings.errors) > num_errors:
        return None
    return Placement(
        accelerator=Accelerator.cpu,
        num_devices=hardware.devices,
        device_name="CPU",
        memory_gib=memory if hardware.memory_gib is None else hardware.memory_gib,
        native_bf16=capability.cpu_native_bf16,
    )


def _place_on_cuda(
    capability: Capability, versions: Versions, hardware: HardwareConfig, findings: Findings
) -> Placement | None:
    num_errors = len(findings.errors)
    available = capability.cuda_devices
    if hardware.devices > len(available):
        findings.refuse(
            f"hardware={hardware.name} needs {hardware.devices} CUDA devices; this machine has "
            f"{_count_cards(available)}.",
            f"hardware.devices={hardware.devices}",
            f"hardware.devices={len(available)}",
        )
    used = available[: hardware.devices]
    for device in used:
        _check_profile(device, available, hardware, findings)
    for device in dict.fromkeys(used):
        _check_build(device, versions, findings)
    if len(findings.errors) > num_errors:
        return None
    lowest = min(used, key=lambda device: device.compute_capability)
    memory = min(device.memory_gib for device in used)
    if hardware.accelerator is Accelerator.auto and hardware.compute_capability is None:
        findings.because("hardware.accelerator", "cuda", f"auto found {_count_cards(available)}")
    else:
        findings.because("hardware.accelerator", "cuda", "as set")
    return Placement(
        accelerator=Accelerator.cuda,
        num_devices=hardware.devices,
        device_name=lowest.name,
        memory_gib=memory if hardware.memory_gib is None else min(memory, hardware.memory_gib),
        native_bf16=all(device.native_bf16 for device in used),
        compute_capability=lowest.compute_capability,
    )


def _refuse_missing_cuda(
    capability: Capability, versions: Versions, hardware: HardwareConfig, findings: Findings
) -> None:
    wanted = hardware.compute_capability
    of = "" if wanted is None else f" of compute capability {wanted}"
    if capability.nvidia_driver:
        lack = f"this machine has an NVIDIA driver, but {_cuda_obstacle(versions)}"
    else:
        lack = "this machine has none"
    mend = "install a build of torch with CUDA, or " if capability.nvidia_driver else ""
    is_profile = wanted is not None
    instead = "hardware=auto" if is_profile else "hardware.accelerator=auto"
    findings.refuse(
        f"hardware={hardware.name} needs a CUDA device{of}; {lack}.",
        f"hardware={hardware.name}" if is_profile else "hardware.accelerator=cuda",
        f"{mend}{instead} or hardware=cpu; "
        f"`exp train hardware={hardware.name} --cfg job` composes anywhere",
    )


def _cuda_obstacle(versions: Versions) -> str:
    if versions.cuda is None:
        return f"torch {versions.torch} is a build without CUDA"
    return f"torch {versions.torch} (CUDA {versions.cuda}) sees no device"


def _check_profile(
    device: CudaDevice,
    available: tuple[CudaDevice, ...],
    hardware: HardwareConfig,
    findings: Findings,
) -> None:
    """Refuse a card that is older or smaller than the profile; warn of one that is newer."""
    wanted = parse_capability(hardware.compute_capability or "")
    found = format_capability(device.compute_capability)
    others = "hardware=auto, or hardware=cpu"
    for index, other in enumerate(available):
        if _fulfils(other, hardware):
            others = f"CUDA_VISIBLE_DEVICES={index} chooses {other.name}; or {others}"
            break
    if wanted is not None and device.compute_capability < wanted:
        findings.refuse(
            f"hardware={hardware.name} needs a CUDA device of compute capability "
            f"{hardware.compute_capability}; {device.name} has {found}.",
            f"hardware={hardware.name}",
            others,
        )
    elif wanted is not None and device.compute_capability > wanted:
        findings.warn(
            f"hardware={hardware.name} is made for compute capability "
            f"{hardware.compute_capability}; {device.name} has {found} and stands in for it."
        )
    wanted_gib = hardware.memory_gib or 0
    if device.memory_gib < (1 - MEMORY_TOLERANCE) * wanted_gib:
        findings.refuse(
            f"hardware={hardware.name} plans with {wanted_gib:.1f} GiB; {device.name} has "
            f"{device.memory_gib:.1f} GiB.",
            f"hardware.memory_gib={wanted_gib}",
            f"hardware.memory_gib={device.memory_gib:.1f}; or {others}",
        )


def _fulfils(device: CudaDevice, hardware: HardwareConfig) -> bool:
    wanted = parse_capability(hardware.compute_capability or "") or (0, 0)
    enough_memory = (1 - MEMORY_TOLERANCE) * (hardware.memory_gib or 0)
    return device.compute_capability >= wanted and device.memory_gib >= enough_memory


def _check_build(device: CudaDevice, versions: Versions, findings: Findings) -> None:
    """Refuse a torch whose kernels do not run on the card; else the first one launched fails."""
    if versions.cuda is None:
        return
    found = format_capability(device.compute_capability)
    oldest = minimum_cuda(device.compute_capability)
    if (parse_capability(versions.cuda) or oldest) < oldest:
        findings.refuse(
            f"{device.name} has compute capability {found}, which needs torch built with CUDA "
            f"{format_capability(oldest)} or newer; torch {versions.torch} has CUDA "
            f"{versions.cuda}.",
            f"hardware={findings.hardware.name}",
            f"install torch built with CUDA {format_capability(oldest)} or newer, or hardware=cpu",
        )
    elif not has_kernels_for(versions.cuda_archs, device.compute_capability):
        findings.refuse(
            f"{device.name} has compute capability {found}; torch {versions.torch} has kernels for "
            f"{', '.join(versions.cuda_archs)} only.",
            f"hardware={findings.hardware.name}",
            f"install a build of torch with kernels for {found}, or hardware=cpu",
        )


def _count_cards(devices: tuple[CudaDevice, ...]) -> str:
    counts = Counter(device.name for device in devices)
    return ", ".join(f"{count} x {name}" for name, count in counts.items())
