"""The device that a plan is for: a profile's card, which need not be here, or this machine's."""

from dataclasses import dataclass

from exp.config.schema import Accelerator, Attention, HardwareConfig, Precision
from exp.hardware.capability import Capability


@dataclass(frozen=True, slots=True)
class Card:
    """What a plan has to know of a device.

    Attributes:
        memory_gib: Of one device, or what a process may use of the CPU's.
        quantize_to: How a base that does not fit may be stored; None for no way.
        peak_tflops: None where it is not known.
        flop_share: Share of the peak that is expected.
        varlen: Whether FlashAttention computes streams.
    """

    name: str
    on_cpu: bool
    devices: int
    memory_gib: float
    precision: Precision
    quantize_to: str | None = None
    peak_tflops: float | None = None
    flop_share: float | None = None
    varlen: bool = False


def card_of(hardware: HardwareConfig, capability: Capability) -> Card:
    """Describe a profile's card; what the profile leaves open is as on this machine.

    Whether FlashAttention works there is found out by trying: only where it is set is it planned
    with.
    """
    found = capability.cuda_devices
    is_profile = hardware.compute_capability is not None
    on_cpu = hardware.accelerator is Accelerator.cpu or not (is_profile or found)
    if on_cpu:
        memory = capability.memory_gib / hardware.devices
        native_bf16 = capability.cpu_native_bf16
        fallback = Precision.fp32
    else:
        memory = min((device.memory_gib for device in found), default=0.0)
        native_bf16 = bool(found) and all(device.native_bf16 for device in found)
        fallback = Precision.fp16
    precision = hardware.precision
    if precision is Precision.auto:
        precision = Precision.bf16 if native_bf16 else fallback
    return Card(
        name=hardware.name,
        on_cpu=on_cpu,
        devices=hardware.devices,
        memory_gib=memory if hardware.memory_gib is None else hardware.memory_gib,
        precision=precision,
        quantize_to=hardware.quantize_to,
        peak_tflops=hardware.peak_tflops,
        flop_share=hardware.expected_flop_share,
        varlen=not on_cpu and hardware.attention is Attention.flash,
    )
