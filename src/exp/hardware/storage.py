"""How and where the weights of a base are kept: quantised, and spread over several devices."""

from exp.config.schema import Accelerator, HardwareConfig, Precision
from exp.errors import MissingExtraError
from exp.hardware.capability import (
    BITSANDBYTES,
    CHECKPOINT_QUANTIZATIONS,
    Capability,
    Probe,
    Versions,
)
from exp.hardware.findings import Findings
from exp.hardware.placement import Placement
from exp.hardware.settings import Prober

WEIGHT_SHARE = 0.8
"""Share of a device's memory that weights of a spread model may take; activations, the adapter and
its optimizer need the rest."""


def choose_quantization(
    place: Placement,
    precision: Precision,
    wanted: str,
    versions: Versions,
    probe: Prober,
    findings: Findings,
) -> str:
    """Allow a quantised base if one step of it works here, or a quantised checkpoint's reader."""
    if wanted in CHECKPOINT_QUANTIZATIONS:
        _check_reader(place, precision, wanted, versions, findings)
    if wanted not in BITSANDBYTES:
        return wanted
    setting = f"quantization={wanted}"
    if versions.bitsandbytes is None:
        where = findings.where(setting)
        findings.errors.append(MissingExtraError("bitsandbytes", "quantization", where=where))
        return wanted
    result = probe(Probe[wanted], place.accelerator, precision)
    if result.ok:
        reason = f"one step of bitsandbytes {versions.bitsandbytes} worked on {place}"
        findings.because("quantization", wanted, reason)
    else:
        findings.refuse(
            f"bitsandbytes {versions.bitsandbytes} cannot compute {wanted} on {place}: "
            f"{result.why}.",
            setting,
            "quantization=none",
        )
    return wanted


def _check_reader(
    place: Placement, precision: Precision, wanted: str, versions: Versions, findings: Findings
) -> None:
    setting = f"quantization={wanted}"
    needed = CHECKPOINT_QUANTIZATIONS[wanted]
    missing = [name for name in needed if getattr(versions, name) is None]
    if missing:
        findings.refuse(
            f"{wanted.upper()} checkpoints are read by {' and '.join(needed)}; not installed: "
            f"{', '.join(missing)}.",
            setting,
            f"pip install {' '.join(missing)}",
        )
        return
    if wanted == "awq" and place.accelerator is Accelerator.cuda and precision is Precision.bf16:
        findings.refuse(
            "The AWQ kernels for CUDA compute in fp16, not in bf16.",
            setting,
            "hardware.precision=fp16",
        )
        return
    read_by = ", ".join(f"{name} {getattr(versions, name)}" for name in needed)
    findings.because("quantization", wanted, f"the checkpoint's own, read by {read_by}")


def foreign_layers(hardware: HardwareConfig, quantization: str) -> str | None:
    """Say which layers of the model a compiler may not know.

    Those of bitsandbytes are computed between compiled parts, or by operations made for compilers.
    """
    if quantization in CHECKPOINT_QUANTIZATIONS:
        return f"quantization={quantization} has layers of another library"
    if hardware.device_map is not None:
        return f"hardware.device_map={hardware.device_map.value} moves what layers read"
    return None


def choose_max_memory(
    place: Placement,
    capability: Capability,
    hardware: HardwareConfig,
    quantization: str,
    findings: Findings,
) -> tuple[float, ...]:
    """Say how many GiB of weights each device may take; () where a model is not spread."""
    if hardware.device_map is None:
        return ()
    setting = f"hardware.device_map={hardware.device_map.value}"
    if place.accelerator is Accelerator.cpu:
        findings.refuse(
            "A model is spread over CUDA devices; this run computes on the CPU.",
            setting,
            "hardware.device_map=null",
        )
        return ()
    if hardware.devices > 1:
        findings.refuse(
            f"hardware.devices={hardware.devices} has each device train the whole model in a "
            "process of its own; a model that is spread over devices trains in one process.",
            setting,
            "hardware.devices=1, or hardware.device_map=null",
        )
        return ()
    devices = capability.cuda_devices
    memory = tuple(hardware.max_memory)
    if len(memory) > len(devices):
        findings.refuse(
            f"hardware.max_memory names {len(memory)} devices; this machine has {len(devices)}.",
            f"hardware.max_memory=[{','.join(f'{gib:g}' for gib in memory)}]",
            f"hardware.max_memory=[{','.join(f'{gib:g}' for gib in memory[: len(devices)])}]",
        )
        return ()
    _check_room(capability, hardware, quantization, findings)
    chosen = memory or tuple(round(WEIGHT_SHARE * device.memory_gib, 1) for device in devices)
    reason = "as set" if memory else f"{WEIGHT_SHARE} of each device's memory"
    findings.because("hardware.max_memory", list(chosen), f"{reason}, in GiB of weights")
    if hardware.offload_gib is not None:
        findings.warn(
            f"hardware.offload_gib={hardware.offload_gib:g}: weights in CPU memory are copied to "
            "the device at every use, in forward and backward; expect a small part of the usual "
            "speed. quantization=nf4 is far faster, if the model then fits; else add "
            "training.gradient_checkpointing=true, so that copies do not pile up."
        )
    return chosen


def _check_room(
    capability: Capability, hardware: HardwareConfig, quantization: str, findings: Findings
) -> None:
    """Refuse more memory than there is, and CPU memory for what cannot be moved at every use."""
    wanted = f"hardware.max_memory=[{','.join(f'{gib:g}' for gib in hardware.max_memory)}]"
    for index, (gib, device) in enumerate(
        zip(hardware.max_memory, capability.cuda_devices, strict=False)
    ):
        if gib > device.memory_gib:
            findings.refuse(
                f"hardware.max_memory gives device {index} {gib:g} GiB of weights; {device.name} "
                f"has {device.memory_gib:.1f} GiB.",
                wanted,
                "hardware.max_memory=[]",
            )
    offload = hardware.offload_gib
    if offload is None:
        return
    if quantization != "none":
        findings.refuse(
            "Quantised weights are not kept in CPU memory: their layers cannot be copied over at "
            "every use.",
            f"hardware.offload_gib={offload:g}",
            "hardware.offload_gib=null, or quantization=none",
        )
    if offload > capability.memory_gib:
        findings.refuse(
            f"hardware.offload_gib={offload:g}; this process may use "
            f"{capability.memory_gib:.1f} GiB of CPU memory.",
            f"hardware.offload_gib={offload:g}",
            f"hardware.offload_gib={int(capability.memory_gib)}",
        )
