from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from exp.config.schema import HardwareConfig
from exp.hardware.capability import Capability, CudaDevice, parse_capability
from exp.hardware.profiles import load_profiles, matching_profiles

FOLDER = Path(__file__).parents[2] / "conf" / "hardware"
PROFILES = load_profiles(FOLDER)


def machine(*devices: CudaDevice) -> Capability:
    return Capability(8, 60.0, cpu_native_bf16=False, cuda_devices=devices)


def card(capability: tuple[int, int], memory_gib: float) -> CudaDevice:
    return CudaDevice("a card", capability, memory_gib, native_bf16=capability >= (8, 0))


def test_the_documented_profiles_are_there() -> None:
    assert set(PROFILES) >= {
        "auto",
        "cpu",
        "t4",
        "t4x2",
        "a100",
        "a100_80",
        "rtx4090",
        "rtx5090",
        "h100",
        "h200",
    }


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_profile_is_read_as_hydra_would_compose_it(path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values.pop("defaults") == ["base_hardware", "_self_"]
    composed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HardwareConfig), values))
    assert isinstance(composed, HardwareConfig)
    assert asdict(PROFILES[path.stem]) == asdict(composed)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_profile_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize("name", [name for name in PROFILES if name not in ("auto", "cpu")])
def test_a_profile_of_a_card_says_what_the_card_is(name: str) -> None:
    profile = PROFILES[name]
    assert parse_capability(profile.compute_capability or "") is not None
    assert profile.memory_gib is not None


def test_a_key_that_is_no_field_is_refused_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nmemory: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: not a field of HardwareConfig: memory"):
        load_profiles(tmp_path)


def test_a_profile_of_ones_own_is_one_file(tmp_path: Path) -> None:
    text = "name: l4\naccelerator: cuda\ncompute_capability: '8.9'\nmemory_gib: 22.0\n"
    (tmp_path / "l4.yaml").write_text(text, encoding="utf-8")
    own = load_profiles(tmp_path)["l4"]
    found = matching_profiles(machine(card((8, 9), 22.03)), [*PROFILES.values(), own])
    assert [profile.name for profile in found] == ["l4"]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([], []),
        ([card((7, 5), 14.56)], ["t4"]),
        ([card((7, 5), 14.75)] * 2, ["t4x2", "t4"]),
        ([card((7, 5), 14.56), card((8, 0), 39.4)], ["a100", "t4"]),
        ([card((8, 0), 39.38)], ["a100"]),
        ([card((8, 0), 79.14)], ["a100_80", "a100"]),
        ([card((9, 0), 79.1)], ["h100"]),
        ([card((9, 0), 139.7)], ["h200", "h100"]),
        ([card((8, 9), 23.5)], ["rtx4090"]),
        ([card((8, 9), 22.03)], []),
        ([card((12, 0), 31.36)], ["rtx5090"]),
    ],
)
def test_the_profile_that_uses_most_of_the_machine_comes_first(
    devices: list[CudaDevice], expected: list[str]
) -> None:
    found = matching_profiles(machine(*devices), PROFILES.values())
    assert [profile.name for profile in found] == expected


def test_every_hardware_field_is_read_by_the_resolver_or_names_the_profile() -> None:
    folder = Path(__file__).parents[2] / "src" / "exp" / "hardware"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    unread = [f.name for f in fields(HardwareConfig) if f"hardware.{f.name}" not in source]
    assert unread == []
