"""The table of machines and wishes, with faked capabilities: what comes out, or what is refused."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exp.config.groups import open_library
from exp.config.preflight import preflight
from exp.config.schema import Accelerator, Attention, Compile, HardwareConfig, Precision
from exp.errors import HardwareError, MissingExtraError, UserError, UserErrors
from exp.hardware.capability import Capability, CudaDevice, Probe, ProbeResult, Versions
from exp.hardware.profiles import load_profiles
from exp.hardware.resolver import ResolvedHardware, Wishes, resolve_hardware

CONF = Path(__file__).parents[2] / "conf"
PROFILES = load_profiles(CONF / "hardware")

P100 = CudaDevice("Tesla P100", (6, 0), 15.89, native_bf16=False)
V100 = CudaDevice("Tesla V100", (7, 0), 15.77, native_bf16=False)
T4 = CudaDevice("Tesla T4", (7, 5), 14.56, native_bf16=False)
A100 = CudaDevice("NVIDIA A100-SXM4-40GB", (8, 0), 39.38, native_bf16=True)
A100_80 = CudaDevice("NVIDIA A100-SXM4-80GB", (8, 0), 79.14, native_bf16=True)
L4 = CudaDevice("NVIDIA L4", (8, 9), 22.03, native_bf16=True)
RTX4090 = CudaDevice("NVIDIA GeForce RTX 4090", (8, 9), 23.53, native_bf16=True)
RTX5090 = CudaDevice("NVIDIA GeForce RTX 5090", (12, 0), 31.36, native_bf16=True)
H100 = CudaDevice("NVIDIA H100 80GB HBM3", (9, 0), 79.11, native_bf16=True)
H200 = CudaDevice("NVIDIA H200", (9, 0), 139.72, native_bf16=True)
CARDS = {
    "t4": (T4,),
    "t4x2": (T4, T4),
    "a100": (A100,),
    "a100_80": (A100_80,),
    "rtx4090": (RTX4090,),
    "rtx5090": (RTX5090,),
    "h100": (H100,),
    "h200": (H200,),
}

CU118 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
CU128 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CPU_BUILD = Versions(torch="2.13.0+cpu", transformers="5.23.0")
PLAIN = Versions(torch="2.13.0+cu128", transformers="5.23.0", cuda="12.8", cuda_archs=CU128)
FULL = replace(PLAIN, bitsandbytes="0.50.2", flash_attn="2.8.3")
OLD = replace(FULL, torch="2.10.0+cu126", cuda="12.6", cuda_archs=CU118)

ALL_WORK = dict.fromkeys(Probe, ProbeResult(True))
NO_KERNEL = ProbeResult(False, "RuntimeError: no kernel image is available")
NONE_WORK = dict.fromkeys(Probe, NO_KERNEL)
LAYERS = Wishes(compile=Compile.layers)
NF4 = Wishes(quantization="nf4")


def gpu(*devices: CudaDevice, num_cpus: int = 8) -> Capability:
    return Capability(
        num_cpus=num_cpus,
        memory_gib=60.0,
        cpu_native_bf16=False,
        cuda_devices=devices,
        nvidia_driver=True,
    )


def cpu(num_cpus: int = 8, native_bf16: bool = False, driver: bool = False) -> Capability:
    return Capability(
        num_cpus=num_cpus, memory_gib=30.0, cpu_native_bf16=native_bf16, nvidia_driver=driver
    )


def ask(profile: str, **overrides: Any) -> HardwareConfig:
    """Return a profile with overrides as they are typed: precision="bf16"."""
    kinds = {"accelerator": Accelerator, "precision": Precision, "attention": Attention}
    typed: dict[str, Any] = {
        key: kinds[key](value) if key in kinds else value for key, value in overrides.items()
    }
    return replace(PROFILES[profile], **typed)


def resolve(
    machine: Capability,
    versions: Versions,
    hardware: HardwareConfig,
    wishes: Wishes | None = None,
    results: dict[Probe, ProbeResult] | None = None,
) -> ResolvedHardware:
    results = ALL_WORK if results is None else results
    return resolve_hardware(
        machine,
        versions,
        lambda part, accelerator, precision: results[part],
        hardware,
        wishes,
        PROFILES.values(),
    )


def summary(resolved: ResolvedHardware) -> str:
    """Write the settings as one line: device, number, precision, attention, switches, processes."""
    switches = [
        name for name in ("tf32", "fused_optimizer", "gradient_scaler") if getattr(resolved, name)
    ]
    return " ".join(
        [
            f"{resolved.devices}x{resolved.accelerator.value}",
            resolved.precision.value,
            resolved.attention.value,
            "+".join(switches).replace("_optimizer", "").replace("gradient_", "") or "-",
            f"workers={resolved.num_workers}",
            f"threads={resolved.cpu_threads}",
        ]
    )


AMPERE_FLASH = "1xcuda bf16 flash tf32+fused workers=4 threads=8"
AMPERE_SDPA = "1xcuda bf16 sdpa tf32+fused workers=4 threads=8"
TURING = "1xcuda fp16 sdpa scaler workers=4 threads=8"
CPU_FP32 = "1xcpu fp32 sdpa fused workers=0 threads=8"
CPU_BF16 = "1xcpu bf16 sdpa fused workers=0 threads=8"
NO_CLIPPING = Wishes(clips_gradients=False)

RESOLVES = [
    # The CPU.
    ("auto on a plain CPU", cpu(), CPU_BUILD, ask("auto"), None, {}, CPU_FP32),
    ("auto on a CPU with bf16", cpu(native_bf16=True), CPU_BUILD, ask("auto"), None, {}, CPU_BF16),
    ("cpu on a plain CPU", cpu(), CPU_BUILD, ask("cpu"), None, {}, CPU_FP32),
    ("cpu on a CPU with bf16", cpu(native_bf16=True), CPU_BUILD, ask("cpu"), None, {}, CPU_BF16),
    ("cpu beside a GPU", gpu(H100), FULL, ask("cpu"), None, {}, CPU_FP32),
    ("fp32 on a CPU with bf16", cpu(native_bf16=True), CPU_BUILD, ask("cpu", precision="fp32"),
     None, {}, CPU_FP32),
    ("bf16 on a plain CPU", cpu(), CPU_BUILD, ask("cpu", precision="bf16"), None, {}, CPU_BF16),
    ("one core", cpu(num_cpus=1), CPU_BUILD, ask("auto"), None, {},
     "1xcpu fp32 sdpa fused workers=0 threads=1"),
    ("two processes on the CPU", cpu(), CPU_BUILD, ask("cpu", devices=2), None, {},
     "2xcpu fp32 sdpa fused workers=0 threads=4"),
    ("threads and workers as asked", cpu(), CPU_BUILD, ask("cpu", cpu_threads=3, num_workers=2),
     None, {}, "1xcpu fp32 sdpa fused workers=2 threads=3"),
    ("plain optimizer as asked", cpu(), CPU_BUILD, ask("cpu", fused_optimizer=False), None, {},
     "1xcpu fp32 sdpa - workers=0 threads=8"),
    ("nf4 on the CPU", cpu(), replace(CPU_BUILD, bitsandbytes="0.50.2"), ask("cpu"), NF4,
     {Probe.nf4: ProbeResult(True)}, CPU_FP32),
    ("compile on the CPU", cpu(), CPU_BUILD, ask("cpu"), LAYERS,
     {Probe.compile: ProbeResult(True)}, CPU_FP32),
    # Turing: fp16, never bf16, never FlashAttention, no probe of it either.
    ("auto on a T4", gpu(T4), FULL, ask("auto"), None, {}, TURING),
    ("auto on a T4 without extras", gpu(T4), PLAIN, ask("auto"), None, {}, TURING),
    ("t4 on a T4", gpu(T4), FULL, ask("t4"), None, {}, TURING),
    ("t4 on a T4 with an old build", gpu(T4), OLD, ask("t4"), None, {}, TURING),
    ("t4 with auto precision", gpu(T4), FULL, ask("t4", precision="auto"), None, {}, TURING),
    ("t4 with auto attention", gpu(T4), FULL, ask("t4", attention="auto"), None, {}, TURING),
    ("fp32 on a T4", gpu(T4), FULL, ask("t4", precision="fp32"), None, {},
     "1xcuda fp32 sdpa fused workers=4 threads=8"),
    ("a T4 without clipping", gpu(T4), FULL, ask("t4"), NO_CLIPPING, {},
     "1xcuda fp16 sdpa fused+scaler workers=4 threads=8"),
    ("a T4 with a fused optimizer and no clipping", gpu(T4), FULL,
     ask("t4", fused_optimizer=True), NO_CLIPPING, {},
     "1xcuda fp16 sdpa fused+scaler workers=4 threads=8"),
    ("nf4 on a T4", gpu(T4), FULL, ask("t4"), NF4, ALL_WORK, TURING),
    ("compile on a T4", gpu(T4), FULL, ask("t4"), LAYERS, ALL_WORK, TURING),
    ("t4x2 on two T4", gpu(T4, T4, num_cpus=4), FULL, ask("t4x2"), None, {},
     "2xcuda fp16 sdpa scaler workers=1 threads=2"),
    ("t4x2 on two cores", gpu(T4, T4, num_cpus=2), FULL, ask("t4x2"), None, {},
     "2xcuda fp16 sdpa scaler workers=0 threads=1"),
    ("auto on two T4", gpu(T4, T4, num_cpus=4), FULL, ask("auto"), None, {},
     "1xcuda fp16 sdpa scaler workers=3 threads=4"),
    ("auto on a V100", gpu(V100), OLD, ask("auto"), None, {}, TURING),
    ("auto on a P100", gpu(P100), OLD, ask("auto"), None, {}, TURING),
    # Ampere and later, with FlashAttention as the probe has it.
    ("auto on an A100", gpu(A100), FULL, ask("auto"), None, ALL_WORK, AMPERE_FLASH),
    ("a100, flash-attn works", gpu(A100), FULL, ask("a100"), None, ALL_WORK, AMPERE_FLASH),
    ("a100, flash-attn fails", gpu(A100), FULL, ask("a100"), None, NONE_WORK, AMPERE_SDPA),
    ("a100, flash-attn not installed", gpu(A100), PLAIN, ask("a100"), None, {}, AMPERE_SDPA),
    ("a100 with flash", gpu(A100), FULL, ask("a100", attention="flash"), None, ALL_WORK,
     AMPERE_FLASH),
    ("a100 with sdpa", gpu(A100), FULL, ask("a100", attention="sdpa"), None, {}, AMPERE_SDPA),
    ("a100 in fp32", gpu(A100), FULL, ask("a100", precision="fp32"), None, {},
     "1xcuda fp32 sdpa tf32+fused workers=4 threads=8"),
    ("a100 in fp32 without tf32", gpu(A100), FULL, ask("a100", precision="fp32", tf32=False),
     None, {}, "1xcuda fp32 sdpa fused workers=4 threads=8"),
    ("a100 in fp16", gpu(A100), FULL, ask("a100", precision="fp16"), None, ALL_WORK,
     "1xcuda fp16 flash tf32+scaler workers=4 threads=8"),
    ("a100 with int8", gpu(A100), FULL, ask("a100"), Wishes(quantization="int8"), ALL_WORK,
     AMPERE_FLASH),
    ("a100 with a gptq checkpoint", gpu(A100),
     replace(PLAIN, gptqmodel="5.0.0", optimum="2.0.0"), ask("a100"),
     Wishes(quantization="gptq"), {}, AMPERE_SDPA),
    ("a100 profile on the larger A100", gpu(A100_80), FULL, ask("a100"), None, ALL_WORK,
     AMPERE_FLASH),
    ("a100_80 on the larger A100", gpu(A100_80), FULL, ask("a100_80"), None, ALL_WORK,
     AMPERE_FLASH),
    ("rtx4090 with an old build", gpu(RTX4090), OLD, ask("rtx4090"), None, ALL_WORK,
     AMPERE_FLASH),
    ("rtx4090, flash-attn fails", gpu(RTX4090), FULL, ask("rtx4090"), None, NONE_WORK,
     AMPERE_SDPA),
    ("auto on an L4", gpu(L4), FULL, ask("auto"), None, ALL_WORK, AMPERE_FLASH),
    ("h100", gpu(H100), FULL, ask("h100"), None, ALL_WORK, AMPERE_FLASH),
    ("h100 with an old build", gpu(H100), OLD, ask("h100"), None, ALL_WORK, AMPERE_FLASH),
    ("h100 profile on an H200", gpu(H200), FULL, ask("h100"), None, ALL_WORK, AMPERE_FLASH),
    ("h200, nf4 and compile", gpu(H200), FULL, ask("h200"),
     Wishes(compile=Compile.full, quantization="nf4"), ALL_WORK, AMPERE_FLASH),
    ("rtx5090, flash-attn works", gpu(RTX5090), FULL, ask("rtx5090"), None, ALL_WORK,
     AMPERE_FLASH),
    ("rtx5090, flash-attn has no kernel", gpu(RTX5090), FULL, ask("rtx5090"), None, NONE_WORK,
     AMPERE_SDPA),
    ("rtx5090, flash-attn not installed", gpu(RTX5090), PLAIN, ask("rtx5090"), None, {},
     AMPERE_SDPA),
    ("rtx5090 with CUDA 13", gpu(RTX5090), replace(PLAIN, cuda="13.0"), ask("rtx5090"), None, {},
     AMPERE_SDPA),
    ("auto on an RTX 5090", gpu(RTX5090), FULL, ask("auto"), None, ALL_WORK, AMPERE_FLASH),
    ("rtx5090 told to use the CPU", gpu(RTX5090), OLD,
     ask("rtx5090", accelerator="cpu", precision="auto"), None, {}, CPU_FP32),
    # A newer card stands in for an older profile, with the profile's settings.
    ("t4 profile on an H100", gpu(H100), FULL, ask("t4"), None, {},
     "1xcuda fp16 sdpa tf32+scaler workers=4 threads=8"),
    ("a100 profile on an H100", gpu(H100), FULL, ask("a100"), None, ALL_WORK, AMPERE_FLASH),
    ("mixed cards, one used", gpu(A100, T4), FULL, ask("auto"), None, ALL_WORK, AMPERE_FLASH),
    ("mixed cards, both used", gpu(A100, T4), FULL, ask("auto", devices=2), None, {},
     "2xcuda fp16 sdpa scaler workers=3 threads=4"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "versions", "hardware", "wishes", "results", "expected"),
    [pytest.param(*case, id=name) for name, *case in RESOLVES],
)
def test_wishes_and_machine_give_these_settings(
    machine: Capability,
    versions: Versions,
    hardware: HardwareConfig,
    wishes: Wishes | None,
    results: dict[Probe, ProbeResult],
    expected: str,
) -> None:
    assert summary(resolve(machine, versions, hardware, wishes, results)) == expected


REFUSED = [
    ("rtx5090 without a GPU", cpu(), CPU_BUILD, ask("rtx5090"), None, ALL_WORK,
     "hardware=rtx5090 needs a CUDA device of compute capability 12.0; this machine has none.",
     "hardware=auto or hardware=cpu; `exp train hardware=rtx5090 --cfg job` composes anywhere"),
    ("rtx5090 with a CPU build of torch", cpu(driver=True), CPU_BUILD, ask("rtx5090"), None,
     ALL_WORK, "has an NVIDIA driver, but torch 2.13.0+cpu is a build without CUDA",
     "install a build of torch with CUDA"),
    ("t4x2 without a GPU", cpu(), CPU_BUILD, ask("t4x2"), None, ALL_WORK,
     "hardware=t4x2 needs a CUDA device of compute capability 7.5", "hardware=cpu"),
    ("any CUDA without a GPU", cpu(), CPU_BUILD, ask("auto", accelerator="cuda"), None, ALL_WORK,
     "hardware=auto needs a CUDA device; this machine has none.", "hardware=cpu"),
    ("rtx5090 on a T4", gpu(T4), FULL, ask("rtx5090", memory_gib=None), None, ALL_WORK,
     "compute capability 12.0; Tesla T4 has 7.5", "hardware=auto"),
    ("rtx5090 on the second card", gpu(T4, RTX5090), FULL, ask("rtx5090", memory_gib=None), None,
     ALL_WORK, "Tesla T4 has 7.5", "CUDA_VISIBLE_DEVICES=1 chooses NVIDIA GeForce RTX 5090"),
    ("a100_80 on the smaller A100", gpu(A100), FULL, ask("a100_80"), None, ALL_WORK,
     "hardware=a100_80 plans with 79.1 GiB; NVIDIA A100-SXM4-40GB has 39.4 GiB",
     "hardware.memory_gib=39.4"),
    ("t4x2 on one T4", gpu(T4), FULL, ask("t4x2"), None, ALL_WORK,
     "hardware=t4x2 needs 2 CUDA devices; this machine has 1 x Tesla T4", "hardware.devices=1"),
    ("more processes than cores", cpu(num_cpus=2), CPU_BUILD, ask("cpu", devices=3), None,
     ALL_WORK, "3 processes on the CPU need a core each", "hardware.devices=1"),
    ("more memory than the machine's", cpu(), CPU_BUILD, ask("cpu", memory_gib=64), None, ALL_WORK,
     "hardware.memory_gib is 64.0; each process on the CPU may use 30.0 GiB",
     "hardware.memory_gib=null"),
    ("rtx5090 with CUDA 12.6", gpu(RTX5090), OLD, ask("rtx5090"), None, ALL_WORK,
     "needs torch built with CUDA 12.8 or newer; torch 2.10.0+cu126 has CUDA 12.6",
     "install torch built with CUDA 12.8 or newer"),
    ("auto on an RTX 5090 with CUDA 12.6", gpu(RTX5090), OLD, ask("auto"), None, ALL_WORK,
     "needs torch built with CUDA 12.8 or newer", "hardware=cpu"),
    ("a build without the card's kernels", gpu(P100), FULL, ask("auto"), None, ALL_WORK,
     "Tesla P100 has compute capability 6.0; torch 2.13.0+cu128 has kernels for sm_75",
     "install a build of torch with kernels for 6.0"),
    ("bf16 on a T4", gpu(T4), FULL, ask("t4", precision="bf16"), None, ALL_WORK,
     "Tesla T4 (compute capability 7.5) has no bf16; torch would emulate it",
     "hardware.precision=fp16"),
    ("bf16 on mixed cards", gpu(A100, T4), FULL, ask("auto", precision="bf16", devices=2), None,
     ALL_WORK, "Tesla T4 (compute capability 7.5) has no bf16", "hardware.precision=auto"),
    ("flash on a T4", gpu(T4), FULL, ask("t4", attention="flash"), None, ALL_WORK,
     "FlashAttention needs compute capability 8.0; Tesla T4", "hardware.attention=sdpa"),
    ("flash on the CPU", cpu(), FULL, ask("cpu", attention="flash"), None, ALL_WORK,
     "FlashAttention needs a CUDA device", "hardware.attention=sdpa"),
    ("flash in fp32", gpu(A100), FULL, ask("a100", attention="flash", precision="fp32"), None,
     ALL_WORK, "FlashAttention computes in bf16 or fp16, not in fp32", "hardware.attention=sdpa"),
    ("flash without a kernel", gpu(RTX5090), FULL, ask("rtx5090", attention="flash"), None,
     NONE_WORK, "flash-attn 2.8.3 failed on NVIDIA GeForce RTX 5090 (compute capability 12.0): "
     "RuntimeError: no kernel image is available", "hardware.attention=sdpa"),
    ("flash not installed", gpu(A100), PLAIN, ask("a100", attention="flash"), None, ALL_WORK,
     "flash-attn is not installed", 'pip install "exp[flash]"'),
    ("fp16 on the CPU", cpu(), CPU_BUILD, ask("cpu", precision="fp16"), None, ALL_WORK,
     "fp16 needs a CUDA device", "hardware.precision=auto"),
    ("a fused optimizer that cannot clip", gpu(T4), FULL, ask("t4", fused_optimizer=True), None,
     ALL_WORK, "unscales fp16 gradients only after they were clipped",
     "hardware.fused_optimizer=false, or training.gradient_clip_norm=null"),
    ("nf4 not installed", gpu(A100), PLAIN, ask("a100"), NF4, ALL_WORK,
     "bitsandbytes is not installed", 'pip install "exp[quantization]"'),
    ("nf4 without a kernel", gpu(RTX5090), FULL, ask("rtx5090", attention="sdpa"), NF4, NONE_WORK,
     "bitsandbytes 0.50.2 cannot compute nf4 on NVIDIA GeForce RTX 5090", "quantization=none"),
    ("int8 without a kernel", cpu(), FULL, ask("cpu"), Wishes(quantization="int8"), NONE_WORK,
     "bitsandbytes 0.50.2 cannot compute int8 on the CPU", "quantization=none"),
    ("a gptq checkpoint without its reader", gpu(A100), PLAIN, ask("a100"),
     Wishes(quantization="gptq"), ALL_WORK, "not installed: gptqmodel, optimum",
     "pip install gptqmodel optimum"),
    ("compile without a compiler", cpu(), CPU_BUILD, ask("cpu"), LAYERS, NONE_WORK,
     "one compiled step failed on the CPU", "training.compile=off"),
    ("compile on a P100", gpu(P100), OLD, ask("auto"), LAYERS, ALL_WORK,
     "Triton needs compute capability 7.0; Tesla P100", "training.compile=off"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "versions", "hardware", "wishes", "results", "what", "fix"),
    [pytest.param(*case, id=name) for name, *case in REFUSED],
)
def test_a_wish_that_cannot_be_met_is_refused_with_a_fix(
    machine: Capability,
    versions: Versions,
    hardware: HardwareConfig,
    wishes: Wishes | None,
    results: dict[Probe, ProbeResult],
    what: str,
    fix: str,
) -> None:
    with pytest.raises((HardwareError, MissingExtraError)) as caught:
        resolve(machine, versions, hardware, wishes, results)
    assert what in caught.value.what
    assert fix in (caught.value.fix or "")
    assert f"hardware={hardware.name}" in (caught.value.where or "")


def test_the_table_has_at_least_sixty_cases() -> None:
    names = [case[0] for case in [*RESOLVES, *REFUSED]]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_resolves_on_its_own_card_without_a_warning(name: str) -> None:
    machine = gpu(*CARDS[name]) if name in CARDS else cpu()
    resolved = resolve(machine, FULL, PROFILES[name])
    assert resolved.name == name
    assert resolved.devices == PROFILES[name].devices
    assert resolved.warnings == ()


@pytest.mark.parametrize("name", [name for name in CARDS if name != "t4x2"])
def test_auto_names_the_profile_of_the_card_it_found(name: str) -> None:
    resolved = resolve(gpu(*CARDS[name]), FULL, ask("auto"))
    profile = {reason.name: reason for reason in resolved.reasons}["hardware.profile"]
    assert profile.value == name
    assert CARDS[name][0].name in profile.reason


@pytest.mark.parametrize("name", [name for name in CARDS if name != "t4x2"])
def test_auto_settles_as_the_profile_of_the_card_does(name: str) -> None:
    machine = gpu(*CARDS[name])
    assert summary(resolve(machine, FULL, ask("auto"))) == summary(
        resolve(machine, FULL, PROFILES[name])
    )


def test_auto_says_that_no_profile_is_made_for_an_unknown_card() -> None:
    resolved = resolve(gpu(L4), FULL, ask("auto"))
    profile = {reason.name: reason for reason in resolved.reasons}["hardware.profile"]
    assert profile.value is None
    assert "no profile is made for NVIDIA L4: compute capability 8.9, 22.0 GiB" in profile.reason


def test_auto_names_the_profile_of_the_card_that_is_used_not_of_another() -> None:
    resolved = resolve(gpu(T4, A100), FULL, ask("auto"))
    profile = {reason.name: reason for reason in resolved.reasons}["hardware.profile"]
    assert profile.value == "t4"


def test_auto_on_two_cards_names_the_profile_that_uses_both() -> None:
    resolved = resolve(gpu(T4, T4), FULL, ask("auto"))
    assert resolved.warnings == ("1 of 2 CUDA devices used; hardware=t4x2 uses more of them.",)


WISHES_OF_A_T4 = list(
    itertools.product(
        ["auto", "t4", "t4x2"],
        Precision,
        Attention,
        [None, True, False],
        ["none", "nf4", "int8"],
        Compile,
        [True, False],
    )
)


def test_a_t4_never_gets_bf16_or_flash_attention() -> None:
    num_resolved = 0
    for profile, precision, attention, fused, quantization, compiled, clips in WISHES_OF_A_T4:
        hardware = replace(
            PROFILES[profile], precision=precision, attention=attention, fused_optimizer=fused
        )
        wishes = Wishes(compiled, quantization, clips)
        refused = precision is Precision.bf16 or attention is Attention.flash
        try:
            resolved = resolve(gpu(T4, T4), FULL, hardware, wishes)
        except (HardwareError, UserErrors):
            continue
        num_resolved += 1
        assert not refused
        assert resolved.precision in (Precision.fp16, Precision.fp32)
        assert resolved.attention is Attention.sdpa
        assert not resolved.tf32
    assert num_resolved > 100


@pytest.mark.parametrize("devices", [*CARDS.values(), (), (T4, A100), (L4,)])
@pytest.mark.parametrize("native_bf16", [True, False])
@pytest.mark.parametrize("results", [ALL_WORK, NONE_WORK], ids=["probes work", "probes fail"])
def test_auto_always_finds_settings(
    devices: tuple[CudaDevice, ...], native_bf16: bool, results: dict[Probe, ProbeResult]
) -> None:
    machine = replace(gpu(*devices), cpu_native_bf16=native_bf16)
    resolved = resolve(machine, FULL, ask("auto"), None, results)
    assert resolved.precision is not Precision.auto
    assert resolved.attention is not Attention.auto
    assert resolved.accelerator is not Accelerator.auto


def test_every_setting_has_its_reason() -> None:
    wishes = Wishes(Compile.layers, "nf4")
    resolved = resolve(gpu(RTX5090), FULL, ask("rtx5090"), wishes)
    reasons = {reason.name: reason for reason in resolved.reasons}
    assert set(reasons) == {
        "hardware.accelerator",
        "hardware.precision",
        "hardware.attention",
        "hardware.tf32",
        "hardware.fused_optimizer",
        "training.compile",
        "quantization",
        "hardware.num_workers",
        "hardware.cpu_threads",
    }
    assert all(reason.reason for reason in resolved.reasons)
    assert reasons["hardware.attention"].value == "flash"
    assert "one step of flash-attn 2.8.3 worked" in reasons["hardware.attention"].reason


@pytest.mark.parametrize(
    ("machine", "hardware", "reason"),
    [
        (gpu(T4), ask("auto"), "FlashAttention needs compute capability 8.0"),
        (gpu(A100), ask("auto"), "flash-attn 2.8.3 failed on NVIDIA A100"),
        (cpu(), ask("auto"), "FlashAttention needs a CUDA device"),
    ],
)
def test_a_fallback_to_sdpa_names_its_reason(
    machine: Capability, hardware: HardwareConfig, reason: str
) -> None:
    resolved = resolve(machine, FULL, hardware, None, NONE_WORK)
    attention = next(r for r in resolved.reasons if r.name == "hardware.attention")
    assert attention.value == "sdpa"
    assert reason in attention.reason


@pytest.mark.parametrize(
    ("machine", "versions", "hardware", "warning"),
    [
        (cpu(), CPU_BUILD, ask("cpu", precision="bf16"), "bf16 is emulated, which is slow"),
        (cpu(driver=True), CPU_BUILD, ask("auto"), "a build without CUDA; the run uses the CPU"),
        (cpu(driver=True), FULL, ask("auto"), "sees no device; the run uses the CPU"),
        (cpu(), CPU_BUILD, ask("cpu", cpu_threads=9), "more than the 8 cores"),
        (cpu(), CPU_BUILD, ask("cpu", num_workers=9), "more than the 8 cores"),
        (gpu(H100), FULL, ask("a100"), "NVIDIA H100 80GB HBM3 has 9.0 and stands in for it"),
    ],
)
def test_a_doubtful_wish_is_met_with_a_warning(
    machine: Capability, versions: Versions, hardware: HardwareConfig, warning: str
) -> None:
    (message,) = resolve(machine, versions, hardware).warnings
    assert warning in message


def test_a_process_for_each_core_is_no_reason_for_a_warning() -> None:
    assert resolve(cpu(), CPU_BUILD, ask("cpu", num_workers=8, cpu_threads=8)).warnings == ()


def test_all_refused_wishes_are_shown_together() -> None:
    hardware = ask("t4", precision="bf16", attention="flash")
    with pytest.raises(UserErrors) as caught:
        resolve(gpu(T4), PLAIN, hardware, Wishes(Compile.layers, "nf4"), NONE_WORK)
    message = str(caught.value)
    for wish in (
        "hardware.precision=bf16",
        "hardware.attention=flash",
        "training.compile=layers",
        "quantization=nf4",
    ):
        assert f"where: {wish} with hardware=t4" in message


SUGGESTED = [
    ("rtx5090, one compiled step works", gpu(RTX5090), ask("rtx5090"), ALL_WORK, "layers",
     "one compiled step worked on NVIDIA GeForce RTX 5090"),
    ("auto finds an RTX 5090", gpu(RTX5090), ask("auto"), ALL_WORK, "layers",
     "one compiled step worked on NVIDIA GeForce RTX 5090"),
    ("rtx5090, no compiled step works", gpu(RTX5090), ask("rtx5090"), NONE_WORK, "off",
     "one compiled step failed on NVIDIA GeForce RTX 5090"),
    ("rtx5090 told to use the CPU", cpu(),
     ask("rtx5090", accelerator="cpu", precision="auto", memory_gib=None), ALL_WORK, "off",
     "the profile suggests none on the CPU"),
    ("t4", gpu(T4), ask("t4"), ALL_WORK, "off", "the profile suggests none on Tesla T4"),
    ("auto on a T4", gpu(T4), ask("auto"), ALL_WORK, "off", "the profile suggests none"),
    ("auto on a card without a profile", gpu(L4), ask("auto"), ALL_WORK, "off",
     "the profile suggests none on NVIDIA L4"),
    ("auto with a suggestion of one's own", gpu(L4), ask("auto", compile=Compile.full), ALL_WORK,
     "full", "one compiled step worked on NVIDIA L4"),
    ("cpu", cpu(), ask("cpu"), ALL_WORK, "off", "the profile suggests none on the CPU"),
    ("cpu with a suggestion of one's own", cpu(), ask("cpu", compile=Compile.layers), ALL_WORK,
     "layers", "one compiled step worked on the CPU"),
    ("a P100 with a suggestion", gpu(P100), ask("auto", compile=Compile.layers), ALL_WORK, "off",
     "Triton needs compute capability 7.0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "hardware", "results", "compiled", "reason"),
    [pytest.param(*case, id=name) for name, *case in SUGGESTED],
)
def test_auto_compiles_what_the_profile_suggests_where_it_works(
    machine: Capability,
    hardware: HardwareConfig,
    results: dict[Probe, ProbeResult],
    compiled: str,
    reason: str,
) -> None:
    versions = OLD if P100 in machine.cuda_devices else FULL
    resolved = resolve(machine, versions, hardware, Wishes(compile=Compile.auto), results)
    assert resolved.compile is Compile[compiled]
    reasons = {one.name: one for one in resolved.reasons}
    assert reasons["training.compile"].value == compiled
    assert reason in reasons["training.compile"].reason


@pytest.mark.parametrize("name", CARDS)
def test_auto_takes_from_the_profile_of_the_card_what_no_probe_can_tell(name: str) -> None:
    profile = PROFILES[name]
    found = resolve(gpu(*CARDS[name]), FULL, ask("auto", devices=profile.devices))
    assert found.peak_tflops == profile.peak_tflops
    assert found.expected_flop_share == profile.expected_flop_share
    assert found.quantize_to == profile.quantize_to


def test_what_is_set_goes_before_the_profile_of_the_card() -> None:
    hardware = ask("auto", peak_tflops=200.0, expected_flop_share=0.5, quantize_to="nf4")
    found = resolve(gpu(H100), FULL, hardware)
    settled = (found.peak_tflops, found.expected_flop_share, found.quantize_to)
    assert settled == (200.0, 0.5, "nf4")


def test_the_16_bit_peak_says_nothing_about_fp32() -> None:
    assert resolve(gpu(A100), FULL, ask("a100", precision="fp32")).peak_tflops is None


QUANTIZATIONS = sorted(path.stem for path in (CONF / "quantization").glob("*.yaml"))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("results", [ALL_WORK, NONE_WORK], ids=["probes work", "probes fail"])
@pytest.mark.parametrize("versions", [FULL, PLAIN], ids=["extras", "no extras"])
def test_every_quantization_on_every_profile_resolves_or_says_why_not(
    quantization: str, name: str, results: dict[Probe, ProbeResult], versions: Versions
) -> None:
    machine = gpu(*CARDS[name]) if name in CARDS else cpu()
    refused = None
    try:
        resolved = resolve(machine, versions, ask(name), Wishes(quantization=quantization), results)
    except (HardwareError, MissingExtraError) as error:
        refused = error
    if refused is None:
        assert resolved.quantization == quantization
    else:
        assert quantization in (refused.where or "")
        assert refused.fix


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.thorough
def test_every_profile_composes_and_resolves_on_its_card(name: str) -> None:
    (trial,) = preflight("train", [f"hardware={name}"], open_library()).trials
    assert trial.config.hardware == PROFILES[name]
    assert trial.warnings == ()
    machine = gpu(*CARDS[name]) if name in CARDS else cpu()
    wishes = Wishes(compile=trial.config.training.compile)
    assert resolve(machine, FULL, trial.config.hardware, wishes).name == name


def test_a_build_that_is_too_old_for_the_card_is_refused_before_anything_is_probed() -> None:
    def probe(part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
        raise AssertionError(part)

    wishes = Wishes(Compile.layers, "nf4")
    with pytest.raises(HardwareError, match=r"CUDA 12\.8 or newer"):
        resolve_hardware(gpu(RTX5090), OLD, probe, ask("rtx5090"), wishes)


def test_a_plan_uses_the_smaller_of_the_profile_and_the_card() -> None:
    assert resolve(gpu(H200), FULL, ask("h100")).memory_gib == 79.1
    less = replace(T4, memory_gib=14.2)
    assert resolve(gpu(less), FULL, ask("t4")).memory_gib == 14.2
    assert resolve(gpu(H100), FULL, ask("h100", memory_gib=None)).memory_gib == 79.11
    assert resolve(gpu(T4, A100), FULL, ask("auto", devices=2)).memory_gib == 14.56
    assert resolve(cpu(), CPU_BUILD, ask("cpu", devices=2)).memory_gib == 15.0


def test_nothing_is_probed_that_was_not_asked_for() -> None:
    asked: list[Probe] = []

    def probe(part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
        asked.append(part)
        return ProbeResult(True)

    for machine, hardware in [(gpu(T4), ask("auto")), (cpu(), ask("cpu"))]:
        resolve_hardware(machine, FULL, probe, hardware)
    assert asked == []
    resolve_hardware(gpu(A100), FULL, probe, ask("a100"), Wishes(Compile.full, "int8"))
    assert asked == [Probe.flash_attention, Probe.compile, Probe.int8]


def test_a_probe_is_told_where_and_in_what_the_run_computes() -> None:
    told: list[tuple[Accelerator, Precision]] = []

    def probe(part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
        told.append((accelerator, precision))
        return ProbeResult(True)

    resolve_hardware(gpu(T4), FULL, probe, ask("auto"), NF4)
    assert told == [(Accelerator.cuda, Precision.fp16)]


def test_the_error_for_a_missing_card_has_three_lines() -> None:
    with pytest.raises(UserError) as caught:
        resolve(cpu(), CPU_BUILD, ask("rtx5090"))
    assert str(caught.value).splitlines() == [
        "hardware=rtx5090 needs a CUDA device of compute capability 12.0; this machine has none.",
        "  where: hardware=rtx5090",
        "  fix:   hardware=auto or hardware=cpu; `exp train hardware=rtx5090 --cfg job` composes "
        "anywhere",
    ]


@pytest.mark.parametrize("module", ["capability", "profiles", "resolver", "machine", "probe"])
@pytest.mark.thorough
def test_importing_the_module_does_not_import_torch(module: str) -> None:
    code = f"import sys, exp.hardware.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_resolver_changes_neither_the_request_nor_its_answer() -> None:
    hardware = ask("rtx5090", devices=1)
    before = replace(hardware)
    answers: list[Callable[[], ResolvedHardware]] = [
        lambda: resolve(gpu(RTX5090), FULL, hardware, NF4) for _ in range(2)
    ]
    assert answers[0]() == answers[1]()
    assert hardware == before
