"""Quantised and spread bases on faked machines: what comes out, or what is refused and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exp.config.schema import Accelerator, Attention, Compile, DeviceMap, HardwareConfig, Precision
from exp.errors import HardwareError, MissingExtraError, UserError
from exp.hardware.capability import Capability, CudaDevice, Probe, ProbeResult, Versions
from exp.hardware.profiles import load_profiles
from exp.hardware.resolver import ResolvedHardware, Wishes, resolve_hardware

PROFILES = load_profiles(Path(__file__).parents[2] / "conf" / "hardware")
SCHEMES = ("none", "nf4", "int8", "gptq", "awq")

VERSIONS = Versions(
    torch="2.13.0+cu128",
    transformers="5.23.0",
    cuda="12.8",
    bitsandbytes="0.50.2",
    gptqmodel="6.0",
    optimum="2.0",
)
BARE = replace(VERSIONS, bitsandbytes=None, gptqmodel=None, optimum=None)
WORKS = dict.fromkeys(Probe, ProbeResult(True))
FAILS = dict.fromkeys(Probe, ProbeResult(False, "RuntimeError: no kernel image is available"))


def machine_of(hardware: HardwareConfig) -> Capability:
    """Return the machine that a profile is made for; two T4 for `auto`, no card for `cpu`."""
    if hardware.accelerator is Accelerator.cpu:
        return Capability(num_cpus=8, memory_gib=60.0, cpu_native_bf16=True)
    major, minor = map(int, (hardware.compute_capability or "7.5").split("."))
    gib = hardware.memory_gib or 14.5
    card = CudaDevice(hardware.name, (major, minor), gib, native_bf16=major >= 8)
    count = 2 if hardware.name == "auto" else hardware.devices
    return Capability(
        num_cpus=8,
        memory_gib=60.0,
        cpu_native_bf16=False,
        cuda_devices=(card,) * count,
        nvidia_driver=True,
    )


def resolve(
    hardware: HardwareConfig,
    quantization: str = "none",
    versions: Versions = VERSIONS,
    results: dict[Probe, ProbeResult] | None = None,
    compile: Compile = Compile.auto,
) -> ResolvedHardware:
    results = WORKS if results is None else results
    return resolve_hardware(
        machine_of(hardware),
        versions,
        lambda part, accelerator, precision: results[part],
        hardware,
        Wishes(compile=compile, quantization=quantization),
        PROFILES.values(),
    )


def profile(name: str, **overrides: Any) -> HardwareConfig:
    return replace(PROFILES[name], **overrides)


def reason(resolved: ResolvedHardware, name: str) -> str:
    return next(each.reason for each in resolved.reasons if each.name == name)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PROFILES)
def test_each_quantisation_resolves_on_each_profile_or_says_why_not(name: str, scheme: str) -> None:
    hardware = profile(name)
    if scheme == "awq" and hardware.precision is Precision.bf16:
        with pytest.raises(HardwareError, match="compute in fp16, not in bf16") as caught:
            resolve(hardware, scheme)
        assert caught.value.fix == "hardware.precision=fp16"
        hardware = profile(name, precision=Precision.fp16)
    resolved = resolve(hardware, scheme)
    assert resolved.quantization == scheme
    if scheme in ("gptq", "awq"):
        assert resolved.compile is Compile.off
    if scheme != "none":
        assert ("worked on" if scheme in ("nf4", "int8") else "read by gptqmodel 6.0") in reason(
            resolved, "quantization"
        )


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("name", PROFILES)
def test_without_bitsandbytes_each_profile_names_the_pip_line(name: str, scheme: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        resolve(profile(name), scheme, BARE)
    assert caught.value.fix == 'pip install "exp[quantization]"'
    assert f"quantization={scheme}" in str(caught.value.where)


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("name", PROFILES)
def test_kernels_that_do_not_run_are_refused_before_the_model_loads(name: str, scheme: str) -> None:
    with pytest.raises(HardwareError) as caught:
        resolve(profile(name, attention=Attention.sdpa), scheme, results=FAILS)
    assert "no kernel image is available" in caught.value.what
    assert caught.value.fix == "quantization=none"


@pytest.mark.parametrize(
    ("scheme", "lacking", "fix"),
    [
        ("gptq", {"gptqmodel": None, "optimum": None}, "pip install gptqmodel optimum"),
        ("gptq", {"optimum": None}, "pip install optimum"),
        ("awq", {"gptqmodel": None}, "pip install gptqmodel"),
    ],
)
def test_a_checkpoints_reader_that_is_missing_is_named(
    scheme: str, lacking: dict[str, Any], fix: str
) -> None:
    with pytest.raises(HardwareError) as caught:
        resolve(profile("t4"), scheme, replace(VERSIONS, **lacking))
    assert caught.value.fix == fix


def test_a_quantisation_is_probed_once_and_others_not_at_all() -> None:
    asked: list[Probe] = []

    def probe(part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
        asked.append(part)
        return ProbeResult(True)

    hardware = profile("t4")
    wishes = Wishes(quantization="nf4")
    resolve_hardware(machine_of(hardware), VERSIONS, probe, hardware, wishes, PROFILES.values())
    assert asked == [Probe.nf4]


@pytest.mark.parametrize("scheme", ["gptq", "awq"])
def test_a_wish_to_compile_anothers_kernels_is_refused(scheme: str) -> None:
    with pytest.raises(HardwareError, match=f"quantization={scheme} has layers of another library"):
        resolve(profile("t4"), scheme, compile=Compile.layers)


SPREAD: dict[str, Any] = {"device_map": DeviceMap.balanced}


def test_a_spread_model_takes_a_share_of_every_device() -> None:
    resolved = resolve(profile("auto", **SPREAD), "nf4")
    assert resolved.device_map is DeviceMap.balanced
    assert resolved.max_memory == (11.6, 11.6)
    assert resolved.devices == 1
    assert not any("offload" in warning for warning in resolved.warnings)


def test_what_is_set_for_a_spread_model_holds() -> None:
    hardware = profile("auto", device_map=DeviceMap.auto, max_memory=[10.0, 13.0], offload_gib=30.0)
    resolved = resolve(hardware)
    assert resolved.max_memory == (10.0, 13.0)
    assert resolved.offload_gib == 30.0
    (warning,) = (each for each in resolved.warnings if "offload_gib" in each)
    assert "copied to the device at every use" in warning


def test_where_nothing_is_spread_its_settings_are_not_there() -> None:
    resolved = resolve(profile("auto", max_memory=[10.0], offload_gib=30.0))
    assert (resolved.device_map, resolved.max_memory, resolved.offload_gib) == (None, (), None)


@pytest.mark.parametrize(
    ("name", "overrides", "scheme", "what", "fix"),
    [
        ("t4x2", {}, "none", "a process of its own", "hardware.devices=1"),
        ("cpu", {}, "none", "computes on the CPU", "hardware.device_map=null"),
        ("auto", {"max_memory": [9.0, 9.0, 9.0]}, "none", "names 3 devices", "[9,9]"),
        ("auto", {"max_memory": [9.0, 40.0]}, "none", "has 14.5 GiB", "max_memory=[]"),
        ("auto", {"offload_gib": 20.0}, "nf4", "Quantised weights", "quantization=none"),
        ("auto", {"offload_gib": 99.0}, "none", "may use 60.0 GiB", "hardware.offload_gib=60"),
    ],
)
def test_impossible_spreads_are_refused(
    name: str, overrides: dict[str, Any], scheme: str, what: str, fix: str
) -> None:
    with pytest.raises(UserError) as caught:
        resolve(profile(name, **SPREAD, **overrides), scheme)
    assert what in str(caught.value)
    assert fix in str(caught.value)


def test_a_spread_model_is_not_compiled() -> None:
    with pytest.raises(HardwareError, match=r"hardware\.device_map=balanced moves"):
        resolve(profile("auto", **SPREAD), compile=Compile.layers)
