"""`exp doctor`: try on this machine what a training would need; say what to type to mend it."""

import platform
from collections.abc import Sequence

from exp.commands.doctor.apart import Workbench
from exp.commands.doctor.self_tests import run_self_tests
from exp.commands.doctor.settle import ApartProber, Machine
from exp.config.groups import main_folder
from exp.config.resolve import Resolved
from exp.config.schema import DoctorConfig
from exp.errors import UserError
from exp.hardware.machine import read_capability, read_driver_version, read_versions
from exp.hardware.packages import Package, read_packages
from exp.hardware.profiles import load_profiles
from exp.hardware.resolver import Wishes
from exp.report.doctor_screen import (
    SelfTest,
    Verdict,
    print_machine,
    print_mending,
    print_profiles,
    print_request,
    print_self_tests,
    print_versions,
)

PRELOAD = ("exp.commands.train", "exp.commands.evaluate")


def run(resolved: Resolved) -> int:
    """Print one screen; exit code 1 if what was asked for cannot work here."""
    config: DoctorConfig = resolved.config
    packages = read_packages()
    bench = Workbench(PRELOAD)
    machine = Machine(
        read_capability(),
        read_versions(),
        ApartProber(bench),
        load_profiles(main_folder() / "hardware"),
    )
    print_versions(platform.python_version(), read_driver_version(), machine.versions, packages)
    print_machine(machine.capability)
    asked = machine.settle(config.hardware, _wishes(config))
    print_request(asked)
    tests = run_self_tests(config, asked.settings, machine, bench)
    print_profiles([machine.settle(profile) for profile in machine.profiles.values()])
    print_self_tests(tests)
    mends = what_to_mend(packages, asked.errors, tests)
    print_mending(mends, [f"{test.name}: {test.fix}" for test in tests if _is_optional(test)])
    return 1 if mends else 0


def what_to_mend(
    packages: Sequence[Package], errors: Sequence[UserError], tests: Sequence[SelfTest]
) -> list[str]:
    """Gather what stands in the way of what was asked for, each with what to type."""
    mends = [p.install for p in packages if p.extra is None and not p.fits]
    mends += [error.fix or error.what for error in errors]
    mends += [test.fix or test.detail for test in tests if test.verdict is Verdict.fails]
    return list(dict.fromkeys(mends))


def _is_optional(test: SelfTest) -> bool:
    return test.fix is not None and test.verdict is not Verdict.fails


def _wishes(config: DoctorConfig) -> Wishes:
    return Wishes(
        compile=config.training.compile,
        quantization=config.quantization.name,
        clips_gradients=config.training.gradient_clip_norm is not None,
    )
