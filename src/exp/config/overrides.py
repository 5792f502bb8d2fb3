"""The command line's key=value arguments, each judged on its own before anything is composed."""

import re
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from exp.config.fields import all_fields, closest, closest_key, find
from exp.config.groups import Library
from exp.config.quoting import quoted, typed
from exp.config.schema import PRIMARIES
from exp.errors import ConfigError, UserError
from exp.redaction import current_redactor

URL_WITH_USER = re.compile(r"://[^/\s:@]+:[^/\s@]+@")
INTERPOLATION = re.compile(r"(?<!\\)\$\{")
KEY = re.compile(r"[+~]{0,2}[\w.@/:$-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Setting:
    """One argument that was found good: a choice in a group, or the value of a key."""

    key: str
    value: Any
    text: str
    is_choice: bool

    @property
    def where(self) -> str:
        return f"command line, {self.text}"


@dataclass(frozen=True)
class Given:
    """What was asked for, and where the rest comes from.

    Attributes:
        settings: What stands on the command line.
        places: The file behind a section (the choice in force), or behind a single key.
    """

    settings: tuple[Setting, ...] = ()
    places: dict[str, str] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """Where the value of a key comes from, as far as a person can go and change it."""
        for setting in self.settings:
            if not setting.is_choice and (
                setting.key == key or (key.startswith(setting.key + ".") and setting.key)
            ):
                return setting.where
        while key not in self.places and "." in key:
            key = key.rpartition(".")[0]
        return self.places.get(key, "the schema's default")

    def keys(self) -> set[str]:
        return {setting.key for setting in self.settings if not setting.is_choice}

    def chosen(self) -> set[str]:
        return {setting.key for setting in self.settings if setting.is_choice}


def holds_credential(text: str) -> bool:
    """Whether a text has a token, or the value of a secret environment variable, in it.

    Names alone ("password:") do not count: an instruction may well speak of them.
    """
    return bool(current_redactor().pattern.search(text) or URL_WITH_USER.search(text))


def parse(argument: str) -> Override:
    """Parse one argument by Hydra's grammar.

    Raises:
        ConfigError: It is not of the form key=value.
    """
    where = f"command line, {argument}"
    if holds_credential(argument):
        raise ConfigError(
            f"{argument.partition('=')[0]} looks like a credential; the run's files would keep it.",
            where="command line",
            fix="give credentials to the library itself: HF_TOKEN=..., `wandb login`",
        )
    if argument.find("=") < 1 and not argument.startswith("~"):
        raise ConfigError(
            f"{argument} is not of the form key=value.", where=where, fix="<key>=<value>"
        )
    try:
        return OverridesParser.create().parse_overrides([argument])[0]
    except HydraException as error:
        key, _, value = argument.partition("=")
        if not KEY.fullmatch(key):
            raise ConfigError(
                f"{key!r} cannot be the name of a setting.", where=where, fix="<key>=<value>"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else "it does not parse"
        if "Exception" in reason:
            reason = "it has characters that need quotes"
        raise ConfigError(
            f"The value of {key} cannot be read: {reason}.",
            where=where,
            fix=f"quote it: {typed(key, value)}" if value else f"{key}=<value>",
        ) from None


def keep_text(verb: str, override: Override) -> Override:
    """Keep the value of a setting that is text as it was typed.

    Hydra reads 2024_01 as the number 202401, and 1e3 as 1000.0.
    """
    field = find(PRIMARIES[verb], override.key_or_group)
    kinds = set(field.alternatives) if field is not None else set()
    if not kinds & {str, Any} or override.is_sweep_override() or override.is_delete():
        return override
    if not isinstance(override.value(), bool | int | float):
        return override
    key, _, value = (override.input_line or "").partition("=")
    return parse(f"{key}={quoted(value.strip())}")


def judge(verb: str, override: Override, library: Library) -> list[UserError]:
    """Everything that is wrong with one argument by itself; values are tried out later."""
    text = override.input_line or ""
    key = override.key_or_group
    where = f"command line, {text}"
    if "_target_" in text:
        return [
            ConfigError(
                "_target_ is refused: no setting can name code to run.",
                where=where,
                fix=f"leave it out; components are chosen by name (`exp {verb} --help`)",
            )
        ]
    if override.is_hydra_override():
        if key.startswith("hydra.callbacks"):
            return [
                ConfigError(
                    "hydra.callbacks is refused: no setting can name code to run.",
                    where=where,
                    fix="leave it out",
                )
            ]
        if key == "hydra.mode":
            return [ConfigError("hydra.mode is set by a flag.", where=where, fix="add --multirun")]
        return []
    groups = library.groups(verb)
    if override.package is not None:
        return [
            ConfigError(
                f"{text} moves a group to another package; every group has its place.",
                where=where,
                fix=f"{key}={override.value()}",
            )
        ]
    if key in groups:
        return _judge_choice(override, library, where)
    return _judge_key(verb, override, library, where)


def is_choice(verb: str, override: Override, library: Library) -> bool:
    """Whether an argument chooses within a group, and does not set the value of a key."""
    return override.key_or_group in library.groups(verb)


def _judge_choice(override: Override, library: Library, where: str) -> list[UserError]:
    group = override.key_or_group
    choices = library.choices.get(group, {})
    listed = ", ".join(choices) or "none"
    if override.type is not None and override.type.name != "CHANGE":
        value = "<choice>" if override.is_delete() else _words(override)
        return [
            ConfigError(
                f"{group} has a place already; {(override.input_line or '')[0]} is not for groups.",
                where=where,
                fix=f"{group}={value}, or another of: {listed}",
            )
        ]
    errors: list[UserError] = []
    values = alternatives(override, library)
    if isinstance(override.value(), Glob) and not values:
        errors.append(
            ConfigError(
                f"No choice of {group} fits {_words(override)}.",
                where=where,
                fix=f"{group}=<one of: {listed}>",
            )
        )
    for name in values:
        if name not in choices:
            near = closest(name, choices)
            errors.append(
                ConfigError(
                    f"{group}={name} is no choice" + (f"; the closest is {near}." if near else "."),
                    where=where,
                    fix=f"{group}={near}, out of: {listed}"
                    if near
                    else f"{group}=<one of: {listed}>",
                )
            )
    return errors


def _judge_key(verb: str, override: Override, library: Library, where: str) -> list[UserError]:
    key = override.key_or_group
    root = PRIMARIES[verb]
    groups = library.groups(verb)
    if find(root, key) is None:
        others = [other for other, kind in PRIMARIES.items() if find(kind, key)]
        if others:
            return [
                ConfigError(
                    f"{key} is a setting of exp {others[0]}, not of exp {verb}.",
                    where=where,
                    fix="leave it out",
                )
            ]
        near = closest_key(root, key) or closest(key, groups)
        if near in groups:
            fix = f"{near}=" + " or ".join(library.choices.get(near, {}))
        else:
            fix = _instead(root, key, near, override)
        return [
            ConfigError(
                f"{key} is not a setting of exp {verb}"
                + (f"; the closest is {near}." if near else "."),
                where=where,
                fix=fix,
            )
        ]
    if override.is_delete():
        return [
            ConfigError(
                f"{key} cannot be taken out: every run has it.",
                where=where,
                fix=f"give it another value, {key}=..., or leave the argument out",
            )
        ]
    known = find(root, key)
    if override.is_add() and known is not None and not known.is_mapping:
        return [
            ConfigError(
                f"{key} has a place already; + only adds to a free mapping.",
                where=where,
                fix=f"{key}={_words(override)}",
            )
        ]
    value = override.value()
    if known is not None and known.is_section and isinstance(value, dict):
        return [
            ConfigError(
                f"{key} is a section; its keys are given one by one.",
                where=where,
                fix=" ".join(f"{key}.{name}={item}" for name, item in value.items()),
            )
        ]
    if key == "task.instruction" and INTERPOLATION.search(override.input_line or ""):
        return [
            ConfigError(
                f"{key} holds ${{, which would be read as the name of another setting.",
                where=where,
                fix="put the text into a file: task.instruction_file=<file>",
            )
        ]
    return []


def _instead(root: Any, key: str, near: str | None, override: Override) -> str:
    known = all_fields(root)
    section = (near or key).rpartition(".")[0]
    names = [
        name.removeprefix(section + ".")
        for name, found in known.items()
        if name.rpartition(".")[0] == section
    ]
    listed = f"{section or 'the top level'} has: {', '.join(names)}"
    return f"{near}={_words(override)} ({listed})" if near else listed


def alternatives(override: Override, library: Library) -> list[str]:
    """The values of an argument as they are typed: one, or those of a sweep over listed values."""
    if not override.is_sweep_override():
        return [_words(override)]
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(list(library.choices.get(override.key_or_group, {})))
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return []


def _words(override: Override) -> str:
    """The value as it was typed."""
    return (override.input_line or "").partition("=")[2] or "<value>"
