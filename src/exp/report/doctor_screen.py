"""The screen of `exp doctor`: versions, machine, settings, profiles, self-tests, what to type."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Console
from rich.text import Text

from exp.errors import UserError
from exp.hardware.capability import Capability, Versions, format_capability
from exp.hardware.packages import Package
from exp.hardware.resolver import ResolvedHardware
from exp.redaction import redact
from exp.report.console import print_derived, print_table
from exp.report.visible import visible

WIDTH = 100


class Verdict(Enum):
    """How a self-test ended; only `fails` stands in the way of what was asked for."""

    works = "works"
    limited = "limited"
    no = "no"
    skipped = "skipped"
    fails = "FAILS"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What one self-test found.

    Attributes:
        name: What was tried.
        verdict: How it ended.
        detail: The finding, in a line.
        seconds: How long it took.
        fix: What to type to mend it; None if nothing needs mending.
    """

    name: str
    verdict: Verdict
    detail: str
    seconds: float = 0.0
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileOutcome:
    """What a profile's wishes came to on this machine: settings, or all that stands against it."""

    name: str
    settings: ResolvedHardware | None
    errors: tuple[UserError, ...] = ()


def print_versions(
    python: str, driver: str | None, versions: Versions, packages: Sequence[Package]
) -> None:
    """Print what is installed; what is missing or of another version than wanted by itself."""
    build = "a build without CUDA" if versions.cuda is None else f"CUDA {versions.cuda}"
    # Only architectures of CUDA say something about cards.
    archs = " ".join(arch for arch in versions.cuda_archs if arch.startswith("sm_"))
    lines = [
        f"Python {python}; torch {versions.torch}, {build}{f' for {archs}' if archs else ''}; "
        + (f"NVIDIA driver {driver}" if driver else "no NVIDIA driver")
    ]
    here = [f"{p.name} {p.installed}" for p in packages if p.installed and p.name != "torch"]
    lines += textwrap.wrap(", ".join(here), WIDTH, break_long_words=False, break_on_hyphens=False)
    for package in packages:
        if not package.fits and (package.extra is None or package.installed):
            found = package.installed or "not installed"
            wanted = f" (wanted: {package.wanted})" if package.installed else ""
            lines.append(f"{package.name} is {found}{wanted}: {package.install}")
    _print_section("Versions", lines)


def print_machine(capability: Capability) -> None:
    """Print the processors, and what this process may use of them."""
    bf16 = "native bf16" if capability.cpu_native_bf16 else "no native bf16"
    lines = [
        f"CPU: {capability.num_cpus} core(s) and {capability.memory_gib:.1f} GiB for this process, "
        + bf16
    ]
    lines += [
        f"GPU {index}: {device.name}, compute capability "
        f"{format_capability(device.compute_capability)}, {device.memory_gib:.1f} GiB"
        for index, device in enumerate(capability.cuda_devices)
    ]
    if not capability.cuda_devices:
        lines.append("GPU: none that CUDA can use")
    _print_section("Machine", lines)


def print_request(outcome: ProfileOutcome) -> None:
    """Print the settings that a run would have here and why, or all that stands against it."""
    title = f"What hardware={outcome.name} comes to"
    if outcome.settings is None:
        lines = [line for error in outcome.errors for line in str(error).splitlines()]
        _print_section(f"{title}: it cannot be met", lines, style="red")
        return
    _print_section(title, outcome.settings.warnings)
    print_derived(outcome.settings.reasons)


def print_profiles(outcomes: Sequence[ProfileOutcome]) -> None:
    """Print one line for each profile: what it comes to here, or why it cannot be met."""
    rows = []
    for outcome in outcomes:
        settings = outcome.settings
        words = outcome.errors[0].what if settings is None else describe_settings(settings)
        rows.append((outcome.name, "no" if settings is None else "yes", words))
    print_table(("profile", "here", "what it comes to, or why not"), rows, title="Profiles")


def describe_settings(settings: ResolvedHardware) -> str:
    """Write the settings of a run on one line."""
    switches = [
        word
        for word, on in (
            ("TF32", settings.tf32),
            ("fused optimizer", settings.fused_optimizer),
            ("gradient scaler", settings.gradient_scaler),
            (f"compile {settings.compile.value}", settings.compile.value != "off"),
        )
        if on
    ]
    words = [
        f"{settings.devices} x {settings.device_name}",
        f"{settings.memory_gib:.1f} GiB",
        settings.precision.value,
        settings.attention.value,
        *switches,
        f"{settings.num_workers} worker(s)",
    ]
    return ", ".join(words)


def print_self_tests(tests: Sequence[SelfTest]) -> None:
    """Print how every self-test ended."""
    rows = [(test.name, test.verdict.value, f"{test.seconds:.1f}", test.detail) for test in tests]
    columns = ("self-test", "verdict", "seconds", "finding")
    print_table(columns, rows, title="Self-tests", right=(2,))


def print_mending(mends: Sequence[str], optional: Sequence[str]) -> None:
    """Print what to type: first what has to be mended, then what could be had besides."""
    if mends:
        _print_section("To mend", [f"{i}. {fix}" for i, fix in enumerate(mends, 1)], style="red")
    if optional:
        _print_section("Not needed for this, but possible", optional)
    if not mends:
        _print_section("This setup works here.", [], style="green")


def _print_section(title: str, lines: Sequence[str], style: str = "") -> None:
    console = Console()
    console.print()
    # Piped lines are not wrapped: whoever reads them may cut at line ends.
    soft = not console.is_terminal
    console.print(Text(visible(redact(title)), style=f"bold {style}".strip()), soft_wrap=soft)
    for line in lines:
        console.print(Text(f"  {visible(redact(line))}"), soft_wrap=soft, highlight=False)
