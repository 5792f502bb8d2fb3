"""The settings of a run on processors that are chosen already; one function per setting."""

from collections.abc import Callable

from exp.config.schema import Accelerator, Attention, Compile, HardwareConfig, Precision
from exp.errors import MissingExtraError
from exp.hardware.capability import Capability, Probe, ProbeResult, Versions, format_capability
from exp.hardware.findings import Findings
from exp.hardware.placement import Placement

Prober = Callable[[Probe, Accelerator, Precision], ProbeResult]
"""Runs one forward and backward of an optional part on a device, in a precision."""

# FlashAttention 2 is written for Ampere; on Turing it was never ported.
FLASH_ATTENTION_CAPABILITY = (8, 0)
TF32_CAPABILITY = (8, 0)
# Triton, which torch.compile writes GPU kernels in, starts at Volta.
TRITON_CAPABILITY = (7, 0)
# Batches are token ids only, so a few processes keep any GPU busy; more cost memory.
MAX_DERIVED_WORKERS = 4


def choose_precision(place: Placement, hardware: HardwareConfig, findings: Findings) -> Precision:
    """Take what the processor computes natively; refuse what it does not compute at all well."""
    wanted = hardware.precision
    on_cpu = place.accelerator is Accelerator.cpu
    if wanted is Precision.auto:
        if place.native_bf16:
            chosen, reason = Precision.bf16, f"{place} computes bf16 natively"
        elif on_cpu:
            chosen, reason = Precision.fp32, "this CPU has neither AVX512-BF16 nor AMX-BF16"
        else:
            chosen, reason = Precision.fp16, f"{place} has no bf16; a gradient scaler guards fp16"
        findings.because("hardware.precision", chosen.value, reason)
        return chosen
    if wanted is Precision.fp16 and on_cpu:
        findings.refuse(
            "fp16 needs a CUDA device: a CPU gains no speed by it, and it overflows.",
            "hardware.precision=fp16",
            "hardware.precision=auto, or hardware.precision=fp32",
        )
    elif wanted is Precision.bf16 and not place.native_bf16 and on_cpu:
        findings.warn(
            "This CPU has neither AVX512-BF16 nor AMX-BF16; bf16 is emulated, which is slow. "
            "hardware.precision=fp32 is faster."
        )
    elif wanted is Precision.bf16 and not place.native_bf16:
        findings.refuse(
            f"{place} has no bf16; torch would emulate it.",
            "hardware.precision=bf16",
            "hardware.precision=fp16, or hardware.precision=auto",
        )
    findings.because("hardware.precision", wanted.value, "as set")
    return wanted


def choose_attention(
    place: Placement,
    precision: Precision,
    versions: Versions,
    probe: Prober,
    hardware: HardwareConfig,
    findings: Findings,
) -> Attention:
    """Take FlashAttention if one step of it works here and now, else SDPA with the reason.

    Whether it is right at a model's own shapes is tried once there is a model; training alone uses
    it, for streams.
    """
    wanted = hardware.attention
    if wanted is Attention.sdpa:
        findings.because("hardware.attention", "sdpa", "as set")
        return wanted
    obstacle = _flash_attention_obstacle(place, precision)
    if obstacle is None and versions.flash_attn is None:
        if wanted is Attention.flash:
            where = findings.where("hardware.attention=flash")
            findings.errors.append(MissingExtraError("flash-attn", "flash", where=where))
            return wanted
        obstacle = "flash-attn is not installed"
    if obstacle is None:
        result = probe(Probe.flash_attention, place.accelerator, precision)
        if not result.ok:
            obstacle = f"flash-attn {versions.flash_attn} failed on {place}: {result.why}"
    if obstacle is None:
        findings.because(
            "hardware.attention",
            "flash",
            f"one step of flash-attn {versions.flash_attn} worked on {place}",
        )
        return Attention.flash
    if wanted is Attention.flash:
        findings.refuse(
            f"FlashAttention cannot be used: {obstacle}.",
            "hardware.attention=flash",
            "hardware.attention=sdpa",
        )
    findings.because("hardware.attention", "sdpa", obstacle)
    return Attention.sdpa


def _flash_attention_obstacle(place: Placement, precision: Precision) -> str | None:
    if place.compute_capability is None:
        return "FlashAttention needs a CUDA device"
    if place.compute_capability < FLASH_ATTENTION_CAPABILITY:
        needed = format_capability(FLASH_ATTENTION_CAPABILITY)
        return f"FlashAttention needs compute capability {needed}; {place} is below it"
    if precision is Precision.fp32:
        return "FlashAttention computes in bf16 or fp16, not in fp32"
    return None


def choose_tf32(place: Placement, hardware: HardwareConfig, findings: Findings) -> bool:
    """Allow TF32 where the card has it; elsewhere the setting means nothing."""
    has_tf32 = (place.compute_capability or (0, 0)) >= TF32_CAPABILITY
    tf32 = hardware.tf32 and has_tf32
    if hardware.tf32 and not has_tf32:
        findings.because("hardware.tf32", False, f"{place} has no TF32")
    else:
        findings.because("hardware.tf32", tf32, "as set")
    return tf32


def choose_fused_optimizer(
    precision: Precision, clips_gradients: bool, hardware: HardwareConfig, findings: Findings
) -> bool:
    """Fuse the optimizer, except where clipping would see gradients that are still scaled."""
    wanted = hardware.fused_optimizer
    # Lightning refuses the pair: a fused optimizer unscales inside its step, after the clipping.
    conflict = precision is Precision.fp16 and clips_gradients
    if wanted is None:
        reason = (
            "fp16 gradients must be unscaled before they are clipped"
            if conflict
            else "one kernel updates all parameters"
        )
        findings.because("hardware.fused_optimizer", not conflict, reason)
        return not conflict
    if wanted and conflict:
        findings.refuse(
            "A fused optimizer unscales fp16 gradients only after they were clipped.",
            "hardware.fused_optimizer=true",
            "hardware.fused_optimizer=false, or training.gradient_clip_norm=null",
        )
    findings.because("hardware.fused_optimizer", wanted, "as set")
    return wanted


def choose_compile(
    place: Placement,
    precision: Precision,
    wanted: Compile,
    probe: Prober,
    hardware: HardwareConfig,
    findings: Findings,
    foreign_layers: str | None = None,
) -> Compile:
    """Allow compilation if a compiler is there and one compiled step works.

    `foreign_layers` says which layers of the model are not plain torch, if any are.
    """
    suggested = wanted
    if wanted is Compile.auto:
        suggested = hardware.compile
        # The profile of a card says nothing about the CPU beside it.
        if place.compute_capability is None and hardware.compute_capability is not None:
            suggested = Compile.off
        if suggested in (Compile.auto, Compile.off):
            findings.because("training.compile", "off", f"the profile suggests none on {place}")
            return Compile.off
    if suggested is Compile.off:
        return Compile.off
    capability = place.compute_capability
    if foreign_layers is not None:
        obstacle = f"{foreign_layers}, and no compiled step of them was proven"
    elif capability is not None and capability < TRITON_CAPABILITY:
        obstacle = f"Triton needs compute capability 7.0; {place} is below it"
    else:
        result = probe(Probe.compile, place.accelerator, precision)
        obstacle = "" if result.ok else f"one compiled step failed on {place}: {result.why}"
    if not obstacle:
        reason = f"one compiled step worked on {place}"
        findings.because("training.compile", suggested.value, reason)
        return suggested
    if wanted is Compile.auto:
        findings.because("training.compile", "off", obstacle)
        return Compile.off
    findings.refuse(
        f"torch.compile cannot be used: {obstacle}.",
        f"training.compile={wanted.value}",
        "training.compile=off",
    )
    return wanted


def choose_num_workers(
    place: Placement, capability: Capability, hardware: HardwareConfig, findings: Findings
) -> int:
    """Take no workers on the CPU, and beside a GPU those that leave the training process a core."""
    wanted = hardware.num_workers
    if wanted is None:
        if place.accelerator is Accelerator.cpu:
            chosen, reason = 0, "the CPU's cores are busy with the model"
        else:
            cores = capability.num_cpus // place.num_devices
            chosen = max(0, min(MAX_DERIVED_WORKERS, cores - 1))
            reason = f"{cores} cores per device, one of them for the training process"
        findings.because("hardware.num_workers", chosen, reason)
        return chosen
    if wanted * place.num_devices > capability.num_cpus:
        findings.warn(
            f"hardware.num_workers={wanted} for {place.num_devices} device(s) is more than the "
            f"{capability.num_cpus} cores that this process may use."
        )
    findings.because("hardware.num_workers", wanted, "as set")
    return wanted


def choose_cpu_threads(
    place: Placement, capability: Capability, hardware: HardwareConfig, findings: Findings
) -> int:
    """Share the cores that this process may use among the training processes."""
    wanted = hardware.cpu_threads
    if wanted is None:
        chosen = max(1, capability.num_cpus // place.num_devices)
        reason = f"{capability.num_cpus} cores, {place.num_devices} training process(es)"
        findings.because("hardware.cpu_threads", chosen, reason)
        return chosen
    if wanted * place.num_devices > capability.num_cpus:
        findings.warn(
            f"hardware.cpu_threads={wanted} for {place.num_devices} process(es) is more than the "
            f"{capability.num_cpus} cores that this process may use; that is slower."
        )
    findings.because("hardware.cpu_threads", wanted, "as set")
    return wanted
