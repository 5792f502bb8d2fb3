"""Where the YAML files lie, and which choices each group has."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from exp.config.fields import own_fields
from exp.config.schema import PRIMARIES
from exp.errors import ConfigError


def main_folder() -> Path:
    """The checkout's conf/ if the package runs from a checkout, else the copy in the wheel."""
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf").is_dir():
        return checkout / "conf"
    return Path(__file__).resolve().parents[1] / "conf"


@dataclass(frozen=True)
class Library:
    """The folders with YAML files: ours first, then the user's. A later one adds, never shadows."""

    folders: tuple[Path, ...]

    @property
    def extra(self) -> Path | None:
        return self.folders[1] if len(self.folders) > 1 else None

    @cached_property
    def choices(self) -> dict[str, dict[str, Path]]:
        """Group -> choice -> file."""
        found: dict[str, dict[str, Path]] = {}
        for folder in self.folders:
            for file in sorted(folder.glob("*/*.yaml")):
                found.setdefault(file.parent.name, {}).setdefault(file.stem, file)
        return found

    @cached_property
    def _groups(self) -> dict[str, dict[str, str | None]]:
        found: dict[str, dict[str, str | None]] = {verb: {} for verb in PRIMARIES}
        for verb, groups in found.items():
            for entry in read_yaml(self.folders[0] / f"{verb}.yaml").get("defaults", []):
                if isinstance(entry, dict):
                    groups.update(entry)
        return found

    def groups(self, verb: str) -> dict[str, str | None]:
        """The groups of a verb with the choice that holds when none is made."""
        return self._groups[verb]

    def place(self, group: str, choice: str | None) -> str | None:
        """The file of a choice in words, like conf/lora/standard.yaml."""
        file = self.choices.get(group, {}).get(choice or "")
        if file is None:
            return None
        if file.is_relative_to(self.folders[0]):
            return f"conf/{group}/{file.name}"
        return str(file)

    def set_by_experiment(self, choice: str | None) -> dict[str, str]:
        """Per key that an experiment sets, the file that does: its own, or one it begins with."""
        place = self.place("experiment", choice)
        if place is None or choice is None:
            return {}
        content = read_yaml(self.choices["experiment"][choice])
        found: dict[str, str] = {}
        for entry in content.pop("defaults", []):
            if isinstance(entry, str):
                found |= self.set_by_experiment(entry)
        return found | dict.fromkeys(_leaves(content), place)


def _leaves(content: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(content, dict):
        yield prefix
        return
    for name, below in content.items():
        yield from _leaves(below, f"{prefix}.{name}" if prefix else str(name))


def open_library(config_dir: str | None = None) -> Library:
    """Our YAML files, and the user's from --config-dir or EXP_CONF_DIR.

    Raises:
        ConfigError: The user's folder is not there, or there are two of them.
    """
    variable = os.environ.get("EXP_CONF_DIR")
    given = config_dir or variable
    if not given:
        return Library((main_folder(),))
    extra = Path(given).expanduser().resolve()
    if variable and Path(variable).expanduser().resolve() != extra:
        raise ConfigError(
            f"--config-dir and EXP_CONF_DIR name different folders, {given} and {variable}.",
            where="command line and environment",
            fix="unset EXP_CONF_DIR, or leave --config-dir out",
        )
    source = "--config-dir" if config_dir else "EXP_CONF_DIR"
    if not extra.is_dir():
        raise ConfigError(
            f"There is no folder {given}.",
            where=f"{source}={given}",
            fix="give a folder that holds group folders, like <folder>/model/mine.yaml",
        )
    return Library((main_folder(), extra))


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, which is faster, where PyYAML was built with it."""


def read_yaml(file: Path) -> dict[str, Any]:
    """One YAML file as plain values.

    Raises:
        ConfigError: It is not YAML, or not a mapping.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.", where=str(file)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file.name} is not valid YAML: {' '.join(str(error).split())}", where=str(file)
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file.name} holds no mapping of keys to values.", where=str(file))
    return content


def sections(verb: str) -> tuple[str, ...]:
    """The names of a verb's sections, which are also the names of its groups."""
    return tuple(field.key for field in own_fields(PRIMARIES[verb]) if field.is_section)
