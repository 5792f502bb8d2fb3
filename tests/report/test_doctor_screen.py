import pytest

from exp.hardware.capability import Versions
from exp.hardware.packages import Package
from exp.report.doctor_screen import SelfTest, Verdict, print_mending, print_self_tests
from exp.report.doctor_screen import print_versions as show

CPU = Versions("2.13.0+cpu", "5.23.0")


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("versions", "driver", "expected"),
    [
        (CPU, None, "torch 2.13.0+cpu, a build without CUDA; no NVIDIA driver"),
        (
            Versions("2.13.0+cu128", "5.23.0", "12.8", ("sm_75", "sm_120", "compute_120")),
            "570.86.15",
            "torch 2.13.0+cu128, CUDA 12.8 for sm_75 sm_120; NVIDIA driver 570.86.15",
        ),
    ],
)
def test_the_build_of_torch_and_the_driver_stand_together(
    capsys: pytest.CaptureFixture[str], versions: Versions, driver: str | None, expected: str
) -> None:
    show("3.11.7", driver, versions, ())
    assert f"  Python 3.11.7; {expected}" in shown(capsys)


def test_a_package_of_another_version_is_named_with_what_to_type(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show("3.11.7", None, CPU, [Package("peft", ">=0.19", "0.1"), Package("rich", ">=13", "15.0")])
    lines = shown(capsys)
    assert '  peft is 0.1 (wanted: >=0.19): pip install "peft>=0.19"' in lines
    assert not [line for line in lines if line.startswith("  rich is")]


def test_an_optional_package_that_is_absent_is_no_fault_of_the_versions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show("3.11.7", None, CPU, [Package("flash-attn", ">=2.8", None, "flash")])
    assert not [line for line in shown(capsys) if "flash-attn" in line]


def test_what_a_library_said_reaches_the_terminal_without_escape_sequences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_self_tests([SelfTest("tracker", Verdict.fails, "no \x1b[31mlogin")])
    assert "\x1b" not in capsys.readouterr().out


def test_mends_are_numbered_and_their_absence_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_mending(["first", "second"], [])
    assert shown(capsys)[-2:] == ["  1. first", "  2. second"]
    print_mending([], ["tracker: wandb login"])
    lines = shown(capsys)
    assert "  tracker: wandb login" in lines
    assert lines[-1] == "This setup works here."
