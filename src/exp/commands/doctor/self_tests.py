"""The self-tests, side by side: optional parts, files and folders, the tracker, a round trip."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from exp.commands.doctor.apart import Workbench
from exp.commands.doctor.parts import (
    check_cache,
    check_cache_folder,
    check_model,
    check_output_folder,
    check_tracker,
)
from exp.commands.doctor.round_trip import make_round_trip
from exp.commands.doctor.settle import ApartProber, Machine
from exp.config.schema import Attention, DoctorConfig, HardwareConfig
from exp.hardware.capability import Probe
from exp.hardware.resolver import ResolvedHardware
from exp.report.doctor_screen import SelfTest, Verdict

ROUND_TRIP_SECONDS = 180
PART_SECONDS = 30
# Waiting for an answer from a server, a disk or a compiler leaves the cores to the others.
SIDE_BY_SIDE = 4

# Importing torch and what stands on it: seconds, or minutes where others use the machine too.
IMPORT_SECONDS = 300

PARTS = {
    Probe.nf4: ("bitsandbytes nf4", "quantization"),
    Probe.int8: ("bitsandbytes int8", "quantization"),
    Probe.compile: ("torch.compile", None),
}
"""What a probe is called, and the extra that its package comes with."""

Test = Callable[[], SelfTest]


def run_self_tests(
    config: DoctorConfig,
    asked: ResolvedHardware | None,
    machine: Machine,
    bench: Workbench,
) -> list[SelfTest]:
    """Run all self-tests and return how they ended, in a fixed order.

    Args:
        config: What is asked for.
        asked: What the asked hardware came to; None if it cannot be met, and then optional parts
            are tried on the CPU.
        machine: What this machine is, and where the probes are run.
        bench: Where everything else is run.
    """
    profile = machine.profiles["cpu"] if asked is None else config.hardware
    here = asked or machine.settle(profile).settings
    assert here is not None, "every machine has a CPU"
    bench.run(IMPORT_SECONDS, _wait_for_imports)
    round_trip: Test = partial(_skip_round_trip)
    if asked is not None:
        round_trip = partial(_test, bench, "round trip", ROUND_TRIP_SECONDS, _round_trip, config)
    part = partial(_test, bench)
    tests: list[Test] = [
        partial(_try_flash_attention, machine, profile),
        *(partial(_try_part, machine.prober, each, here) for each in PARTS),
        partial(part, f"model {config.model.name}", PART_SECONDS, check_model, config.model),
        partial(part, "run folders", PART_SECONDS, check_output_folder, config.output_dir),
        partial(part, "cache folder", PART_SECONDS, check_cache_folder),
        partial(part, "prediction cache", PART_SECONDS, check_cache, config.cache),
        partial(part, "tracker", PART_SECONDS, check_tracker, config.tracker),
        round_trip,
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        # The longest one first; the order of the table stays.
        futures = {test: pool.submit(test) for test in reversed(tests)}
        try:
            return [futures[test].result() for test in tests]
        except BaseException:
            # Leaving the block waits for the threads, which wait for what they run.
            pool.shutdown(wait=False, cancel_futures=True)
            bench.stop()
            raise


def _wait_for_imports() -> None:
    """Be the first to be run, so that the others' seconds are their own."""


def _try_flash_attention(machine: Machine, profile: HardwareConfig) -> SelfTest:
    """Let the resolver say whether it can be had: by one step, or what stands against it."""
    name = "flash attention"
    settings = machine.settle(replace(profile, attention=Attention.auto)).settings
    if settings is None:
        return SelfTest(name, Verdict.skipped, "the hardware asked for cannot be met")
    reason = next(one.reason for one in settings.reasons if one.name == "hardware.attention")
    if settings.attention is Attention.flash:
        return SelfTest(name, Verdict.works, reason)
    fix = 'pip install "exp[flash]"' if "not installed" in reason else None
    return SelfTest(name, Verdict.no, reason, fix=fix)


def _try_part(prober: ApartProber, part: Probe, here: ResolvedHardware) -> SelfTest:
    """Try an optional part; where one is asked for, resolving the hardware has judged it."""
    name, extra = PARTS[part]
    ended = prober.ask(part, here.accelerator, here.precision)
    result = prober(part, here.accelerator, here.precision)
    where = f"on {here.device_name} in {here.precision.value}"
    if result.ok:
        words = f"one step, forward and backward, {where}"
        return SelfTest(name, Verdict.works, words, ended.seconds)
    missing = result.why.startswith("ModuleNotFoundError")
    fix = f'pip install "exp[{extra}]"' if missing and extra is not None else None
    words = "its package is not installed" if missing else f"{result.why} ({where})"
    return SelfTest(name, Verdict.no, words, ended.seconds, fix)


def _round_trip(config: DoctorConfig) -> SelfTest:
    return SelfTest("", Verdict.works, make_round_trip(config))


def _skip_round_trip() -> SelfTest:
    return SelfTest("round trip", Verdict.skipped, "the hardware asked for cannot be met")


def _test(
    bench: Workbench, name: str, limit_seconds: float, check: Callable[..., SelfTest], *given: Any
) -> SelfTest:
    ended = bench.run(limit_seconds, check, *given)
    if ended.failure is not None:
        return SelfTest(name, Verdict.fails, ended.failure, ended.seconds, ended.fix)
    return replace(ended.value, name=name, seconds=ended.seconds)
