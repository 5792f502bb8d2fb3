"""The hardware profiles of conf/hardware as plain values, and which of them a machine matches."""

from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from exp.config.schema import HardwareConfig
from exp.hardware.capability import Capability, parse_capability

# Cards of one name report a few percent more or less, by driver and ECC.
MEMORY_TOLERANCE = 0.05


def load_profiles(folder: Path) -> dict[str, HardwareConfig]:
    """Read every profile of a conf/hardware folder, by name, in alphabetical order.

    Hydra composes the one that a command uses; this is for tables over all of them, and for naming
    the profile that fits a machine.
    """
    profiles = (_load_profile(path) for path in sorted(folder.glob("*.yaml")))
    return {profile.name: profile for profile in profiles}


def _load_profile(path: Path) -> HardwareConfig:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("defaults", None)
    types = get_type_hints(HardwareConfig)
    known = {field.name for field in fields(HardwareConfig)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(f"{path}: not a field of HardwareConfig: {', '.join(unknown)}")
    return HardwareConfig(**{key: _convert(types[key], value) for key, value in values.items()})


def _convert(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[value]
    return value


def matching_profiles(
    capability: Capability, profiles: Iterable[HardwareConfig]
) -> tuple[HardwareConfig, ...]:
    """Return the profiles that this machine's cards fulfil, the one that uses most of it first.

    A profile matches if enough devices have just its compute capability and at least its memory.
    More devices count for more than more memory, which tells t4x2 from t4 and h200 from h100.
    """
    matching = []
    for profile in profiles:
        needed = parse_capability(profile.compute_capability or "")
        devices = [
            device
            for device in capability.cuda_devices
            if device.compute_capability == needed
            and device.memory_gib >= (1 - MEMORY_TOLERANCE) * (profile.memory_gib or 0)
        ]
        if len(devices) >= max(1, profile.devices):
            matching.append(profile)
    return tuple(
        sorted(matching, key=lambda p: (p.devices, p.memory_gib or 0, p.name), reverse=True)
    )
