"""The whole screen, with what would take long or needs another machine replaced."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import exp.commands.doctor as doctor
from exp.commands.doctor import self_tests
from exp.commands.doctor.apart import Ended, Workbench
from exp.errors import HardwareError
from exp.hardware.capability import Capability, CudaDevice, Probe, ProbeResult, Versions
from exp.hardware.packages import Package
from exp.report.doctor_screen import SelfTest, Verdict

T4 = CudaDevice("Tesla T4", (7, 5), 14.56, native_bf16=False)
A100 = CudaDevice("NVIDIA A100-SXM4-40GB", (8, 0), 39.38, native_bf16=True)
RTX5090 = CudaDevice("NVIDIA GeForce RTX 5090", (12, 0), 31.36, native_bf16=True)
CU128 = Versions(
    "2.13.0+cu128", "5.23.0", "12.8", ("sm_75", "sm_80", "sm_120"), "0.50.2", flash_attn="2.8.3"
)
CU126 = replace(CU128, torch="2.10.0+cu126", cuda="12.6", cuda_archs=("sm_75", "sm_80", "sm_90"))


class Bench(Workbench):
    """Calls nothing; probes and tests end as told, all others work."""

    def __init__(self, **failures: str) -> None:
        self.failures = failures
        self.called: list[str] = []

    def run(self, limit_seconds: float, function: Callable, *arguments: object) -> Ended:
        probe = isinstance(arguments[0], Probe) if arguments else False
        name = arguments[0].value if probe else function.__name__  # type: ignore[attr-defined]
        self.called.append(name)
        failure = self.failures.get(name)
        if probe:
            return Ended(ProbeResult(failure is None, failure or ""), seconds=1.0)
        if failure is not None:
            return Ended(failure=failure, fix=f"mend {name}", seconds=1.0)
        return Ended(SelfTest("", Verdict.works, f"{name} worked"), seconds=1.0)


@pytest.fixture
def examine(exp, monkeypatch, capsys):
    """Run the doctor on a faked machine; the exit code, what it printed, and what was run."""

    def run(*words, devices=(), versions=CU128, **failures):
        machine = Capability(8, 60.0, False, tuple(devices), nvidia_driver=bool(devices))
        bench = Bench(**failures)
        monkeypatch.setattr(doctor, "Workbench", lambda preload: bench)
        monkeypatch.setattr(doctor, "read_capability", lambda: machine)
        monkeypatch.setattr(doctor, "read_versions", lambda: versions)
        monkeypatch.setattr(doctor, "read_packages", lambda: ())
        code = exp("doctor", *words)
        return code, "".join(capsys.readouterr()), bench.called

    return run


def line(shown: str, start: str) -> str:
    return next(one for one in shown.splitlines() if one.startswith(start))


def test_a_machine_that_can_do_what_is_asked_gives_exit_code_0(examine):
    code, shown, _ = examine(devices=[A100])
    assert code == 0
    assert "This setup works here." in shown
    assert "To mend" not in shown


def test_the_screen_has_all_its_parts_in_order(examine):
    _, shown, _ = examine(devices=[A100])
    parts = ("Versions", "Machine", "What hardware=auto comes to", "Profiles", "Self-tests")
    places = [shown.index(f"\n{part}") for part in parts]
    assert places == sorted(places)
    assert "GPU 0: NVIDIA A100-SXM4-40GB, compute capability 8.0, 39.4 GiB" in shown


def test_every_profile_says_what_it_comes_to_or_why_not(examine):
    _, shown, _ = examine(devices=[T4])
    assert line(shown, "t4 ").split()[1] == "yes"
    assert "fp16, sdpa, gradient scaler" in line(shown, "t4 ")
    assert line(shown, "t4x2").split()[1] == "no"
    assert "needs 2 CUDA devices" in line(shown, "t4x2")
    assert "compute capability 12.0; Tesla T4 has 7.5" in line(shown, "rtx5090")


@pytest.mark.thorough
def test_hardware_that_cannot_be_met_gives_exit_code_1_and_what_to_type(examine):
    code, shown, called = examine("hardware=rtx5090", devices=[RTX5090], versions=CU126)
    assert code == 1
    assert "it cannot be met" in shown
    assert "1. install torch built with CUDA 12.8 or newer, or hardware=cpu" in shown
    assert "skipped" in line(shown, "round trip")
    assert "_round_trip" not in called


def test_all_that_stands_against_the_hardware_is_mended_together(examine):
    words = ("hardware=t4", "hardware.precision=bf16", "hardware.attention=flash")
    code, shown, _ = examine(*words, devices=[T4])
    assert code == 1
    assert "1. hardware.precision=fp16" in shown
    assert "2. hardware.attention=sdpa" in shown


def test_an_optional_part_that_fails_is_no_reason_for_exit_code_1(examine):
    code, shown, _ = examine(devices=[A100], nf4="RuntimeError: no kernel image")
    assert code == 0
    assert line(shown, "bitsandbytes nf4").split()[2] == "no"
    assert "RuntimeError: no kernel image" in line(shown, "bitsandbytes nf4")


def test_the_same_part_is_one_if_it_is_asked_for(examine):
    failures = {"compile": "RuntimeError: no compiler"}
    code, shown, _ = examine("training.compile=layers", devices=[A100], **failures)
    assert code == 1
    assert "1. training.compile=off" in shown


def test_flash_attention_on_a_t4_names_the_card_and_nothing_to_install(examine):
    _, shown, called = examine(devices=[T4], versions=replace(CU128, flash_attn=None))
    assert "Tesla T4 (compute capability 7.5) is below it" in line(shown, "flash attention")
    assert "exp[flash]" not in shown.partition("Self-tests")[2]
    assert "flash_attention" not in called


def test_a_part_that_is_not_installed_is_named_with_what_to_type(examine):
    _, shown, _ = examine(devices=[A100], versions=replace(CU128, flash_attn=None))
    assert 'flash attention: pip install "exp[flash]"' in shown


@pytest.mark.parametrize("name", ["check_model", "check_output_folder", "_round_trip"])
def test_what_every_training_needs_gives_exit_code_1(examine, name):
    code, shown, _ = examine(devices=[A100], **{name: "it is broken"})
    assert code == 1
    assert f"1. mend {name}" in shown
    assert "FAILS" in shown


def test_each_place_is_probed_once(examine):
    _, _, called = examine("hardware=a100", devices=[A100])
    assert sorted(set(called) & {part.value for part in Probe}) == sorted(p.value for p in Probe)
    assert called.count("compile") == called.count("nf4") == 1
    # In bf16 for most profiles, in fp16 for none on this card but those of a T4, which use SDPA.
    assert called.count("flash_attention") == 1


def test_what_stands_in_the_way_is_named_once_each_and_optional_parts_are_not():
    packages = [Package("torch", ">=2.10", "2.0"), Package("flash-attn", ">=2", None, "flash")]
    errors = [HardwareError("no", fix="hardware=cpu"), HardwareError("no", fix="hardware=cpu")]
    tests = [SelfTest("a", Verdict.fails, "broken"), SelfTest("b", Verdict.limited, "x", fix="y")]
    mends = doctor.what_to_mend(packages, errors, tests)
    assert mends == ['pip install "torch>=2.10"', "hardware=cpu", "broken"]


def test_a_setting_that_the_doctor_does_not_use_is_told(examine):
    _, shown, _ = examine("training.epochs=3", devices=[A100])
    assert "training.epochs has no effect in this run" in shown


def test_an_interruption_ends_what_still_runs(examine, monkeypatch):
    stopped = []
    monkeypatch.setattr(Bench, "stop", lambda bench: stopped.append(bench))

    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(self_tests, "_try_part", interrupt)
    code, shown, _ = examine(devices=[A100])
    assert (code, len(stopped)) == (130, 1)
    assert shown.endswith("Interrupted.\n")


def test_every_probe_is_a_self_test():
    assert {Probe.flash_attention, *self_tests.PARTS} == set(Probe)


@pytest.mark.slow
def test_the_real_round_trip_works_on_the_cpu(tmp_path):
    from exp.commands.doctor.round_trip import make_round_trip
    from exp.config.groups import open_library
    from exp.config.preflight import preflight

    words = ["hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1"]
    (trial,) = preflight("doctor", words, open_library()).trials
    ended = Workbench().run(600, make_round_trip, trial.config)
    assert ended.failure is None
    assert "4 predictions alike" in ended.value


@pytest.mark.slow
def test_a_round_trip_whose_adapter_is_lost_is_not_believed(monkeypatch):
    from exp.commands.doctor import round_trip
    from exp.config.groups import open_library
    from exp.config.preflight import preflight
    from exp.errors import ModelError

    (trial,) = preflight("doctor", ["hardware=cpu"], open_library()).trials
    answers = iter([{"a": "live"}, {"a": "another"}])
    monkeypatch.setattr(round_trip, "_train", lambda config, folder: None)
    monkeypatch.setattr(round_trip, "_evaluate", lambda config, run: None)
    monkeypatch.setattr(round_trip, "_predictions", lambda run: next(answers))
    with pytest.raises(ModelError, match="1 of 1 predictions of the saved adapter differ"):
        round_trip.make_round_trip(trial.config)
