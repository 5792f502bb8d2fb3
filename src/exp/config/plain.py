"""The resolved configuration as a plain YAML file, and back."""

import hashlib
import json
import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from exp.config.fields import closest, own_fields
from exp.config.groups import read_yaml
from exp.config.schema import TrainConfig
from exp.config.section import Section, close
from exp.errors import CheckpointError, ConfigError
from exp.publish import write_atomically

S = TypeVar("S", bound=Section)

NEXT_LINE = "\x85"


class _Dumper(yaml.SafeDumper):
    """Writes text so that it is read back as it was."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes this character as it is, and reads it back as a space; only double quotes make
    # it an escape.
    style = '"' if NEXT_LINE in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def to_plain(value: Any) -> Any:
    """Mappings, lists, numbers and strings alone; an enum member becomes its name."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def write_config(path: Path, config: Section) -> None:
    """Write a configuration as plain YAML: no interpolation, no tag, no type of ours."""
    text = yaml.dump(
        to_plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    write_atomically(path, text)


def config_hash(config: Section) -> str:
    """A hash of every value, the same in every process and after a write and a read."""
    text = json.dumps(to_plain(config), sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@typing.overload
def read_config(path: Path) -> TrainConfig: ...
@typing.overload
def read_config(path: Path, kind: type[S]) -> S: ...
def read_config(path: Path, kind: type[Section] = TrainConfig) -> Section:
    """Read what `write_config` wrote; settings that are not in the file take their defaults.

    Raises:
        CheckpointError: There is no such file.
        ConfigError: It is damaged, or holds keys or types that are not in the schema.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not a run folder: it has no {path.name}.", where=str(path)
        ) from None
    config = build(kind, content, str(path))
    close(config)
    return config


def build(kind: type[S], content: dict[str, Any], where: str, prefix: str = "") -> S:
    """One section from plain values, every key and type checked against the schema."""
    known = {field.key: field for field in own_fields(kind)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            near = closest(str(key), known)
            raise ConfigError(
                f"{prefix}{key} is not a setting"
                + (f"; the closest is {prefix}{near}." * bool(near) or "."),
                where=where,
                fix="the file was written by another version; read it with that one",
            )
        field = known[key]
        if field.is_section:
            if not isinstance(value, dict):
                raise _wrong_type(f"{prefix}{key}", value, "a mapping", where)
            values[key] = build(field.type, value, where, f"{prefix}{key}.")
        else:
            values[key] = _convert(f"{prefix}{key}", value, field.alternatives, where)
    return kind(**values)


def _convert(key: str, value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is Any or (origin is types.NoneType and value is None):
            return value
        if issubclass(origin, Enum):
            if value in origin.__members__:
                return origin[value]
        elif origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif origin is int and isinstance(value, bool):
            continue
        elif isinstance(value, origin):
            return value
    raise _wrong_type(key, value, " or ".join(str(getattr(k, "__name__", k)) for k in kinds), where)


def _wrong_type(key: str, value: Any, wanted: str, where: str) -> ConfigError:
    return ConfigError(f"{key} is {value!r}, which is not {wanted}.", where=where)
