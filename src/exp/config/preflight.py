"""The whole command line judged before Hydra runs: every mistake found, all shown together."""

import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from exp.config.fields import closest_key, find
from exp.config.groups import Library, read_yaml
from exp.config.overrides import (
    Given,
    Setting,
    alternatives,
    is_choice,
    judge,
    keep_text,
    parse,
)
from exp.config.quoting import typed
from exp.config.register import register_schema
from exp.config.resolve import Resolved, missing, resolve
from exp.config.schema import PRIMARIES
from exp.errors import ConfigError, UserError, raise_collected


@dataclass(frozen=True, slots=True)
class Checked:
    """A good command line: the arguments as Hydra takes them, and what each trial would run."""

    arguments: tuple[str, ...]
    given: Given
    trials: tuple[Resolved, ...]


def preflight(
    verb: str,
    arguments: Sequence[str],
    library: Library,
    *,
    sweep: bool = False,
    asks: bool = False,
) -> Checked:
    """Judge every argument by itself, then every trial as a whole.

    Args:
        verb: What the settings are for.
        arguments: The key=value words of the command line.
        library: Where the YAML files are.
        sweep: Whether an argument may have several values, one per trial.
        asks: Whether nothing is run, so that settings without a default may be left open.

    Raises:
        UserError: Everything that is wrong, collected.
    """
    register_schema()
    errors: list[UserError] = []
    good: list[Override] = []
    for argument in arguments:
        try:
            override = keep_text(verb, parse(argument))
        except UserError as error:
            errors.append(error)
            continue
        problems = judge(verb, override, library)
        problems = problems or _out_of_place(override, good, sweep=sweep)
        errors += problems
        if not problems:
            good.append(override)
    own = [override for override in good if not override.is_hydra_override()]
    hydra = [str(o.input_line) for o in good if o.is_hydra_override()]
    found: dict[str, UserError] = {str(error): error for error in errors}
    trials: list[Resolved] = []
    given = Given()
    # A sweep over an interval lists no values; the sweeper will choose them.
    listed = filter(None, (_settings(verb, override, library) for override in own))
    for settings in itertools.product(*listed):
        try:
            config, given = apply(verb, library, hydra, settings)
            if not (asks and missing(config)):
                trials.append(resolve(verb, config, given))
        except UserError as error:
            found.update((str(one), one) for one in getattr(error, "errors", (error,)))
    raise_collected(list(found.values()))
    return Checked(tuple(_argument(verb, o, library) for o in good), given, tuple(trials))


def apply(
    verb: str, library: Library, hydra: Sequence[str], settings: Iterable[Setting]
) -> tuple[DictConfig, Given]:
    """The configuration of one trial, and what was asked for.

    Raises:
        UserError: The YAML files do not fit together, or values are of the wrong type.
    """
    settings = tuple(settings)
    choices = tuple(f"{s.key}={_text(s.value)}" for s in settings if s.is_choice)
    composed, places = compose_choices(verb, library, (*choices, *hydra))
    given = Given(settings, places)
    config = copy.deepcopy(composed)
    errors: list[UserError] = []
    for setting in settings:
        if not setting.is_choice:
            try:
                _refuse_number_for_bool(verb, setting)
                OmegaConf.update(config, setting.key, setting.value, merge=True, force_add=True)
            except (OmegaConfBaseException, ValueError, TypeError):
                errors.append(_wrong_type(verb, setting))
    if errors:
        # The values that do fit are still judged, so that all mistakes are shown together.
        try:
            resolve(verb, config, given)
        except UserError as error:
            errors += getattr(error, "errors", (error,))
    raise_collected(errors)
    return config, given


@cache
def compose_choices(
    verb: str, library: Library, choices: tuple[str, ...]
) -> tuple[DictConfig, dict[str, str]]:
    """The composed files of some choices, and per group the file it came from.

    Raises:
        ConfigError: The files do not fit together.
    """
    search = [f"hydra.searchpath=['file://{library.extra}']"] if library.extra else []
    try:
        with initialize_config_dir(str(library.folders[0]), version_base="1.3"):
            config = compose(verb, [*choices, *search], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError, RecursionError, ValueError) as error:
        for choice in choices:
            group, _, name = choice.partition("=")
            if name in library.choices.get(group, {}):
                read_yaml(library.choices[group][name])  # names the file if it is the one
        raise _composition_error(verb, library, error) from None
    if OmegaConf.select(config, "hydra.callbacks"):
        raise ConfigError(
            "hydra.callbacks is refused: no setting can name code to run.",
            fix="leave hydra.callbacks out",
        )
    if config.hydra.mode is not None:
        raise ConfigError(
            "hydra.mode is set by a file, but a flag sets it.",
            fix="take hydra.mode out of the file, and add --multirun to sweep",
        )
    chosen = config.hydra.runtime.choices
    places = {
        group: place
        for group in library.groups(verb)
        if (place := library.place(group, chosen.get(group)))
    }
    places |= library.set_by_experiment(chosen.get("experiment"))
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    OmegaConf.set_struct(config, True)
    return config, places


def _refuse_number_for_bool(verb: str, setting: Setting) -> None:
    """OmegaConf would take any number but 0 for true.

    Raises:
        TypeError: The setting is true or false, and the value is a number.
    """
    field = find(PRIMARIES[verb], setting.key)
    if field and bool in field.alternatives and type(setting.value) in (int, float):
        raise TypeError(setting.key)


def _wrong_type(verb: str, setting: Setting) -> ConfigError:
    field = find(PRIMARIES[verb], setting.key)
    words = field.type_words if field else "such a value"
    return ConfigError(
        f"{setting.key} is {setting.value!r}, but it has to be {words}.",
        where=setting.where,
        fix=f"{setting.key}=<{words}>",
    )


def _out_of_place(override: Override, before: list[Override], *, sweep: bool) -> list[UserError]:
    """Sweeps without --multirun, keys that are given twice, and names that a sweep gives itself."""
    text, key = override.input_line or "", override.key_or_group
    where = f"command line, {text}"
    if override.is_sweep_override() and not sweep:
        value = text.partition("=")[2]
        return [
            ConfigError(
                f"{key} has several values, and this is not a sweep.",
                where=where,
                fix=f"add --multirun; for a list: {key}=[{value}]; for text: {typed(key, value)}",
            )
        ]
    for other in before:
        if other.key_or_group == key:
            return [
                ConfigError(
                    f"{key} is given twice.",
                    where=f"command line, {other.input_line} {text}",
                    fix=text,
                )
            ]
    if sweep and key == "output_dir" and override.is_sweep_override():
        return [
            ConfigError(
                "output_dir has several values, but a sweep has one folder.",
                where=where,
                fix="output_dir=<folder of studies>",
            )
        ]
    if sweep and key == "name":
        return [
            ConfigError(
                "name is given by the sweep: each trial has its own.",
                where=where,
                fix="output_dir=<folder of studies>",
            )
        ]
    return []


def _settings(verb: str, override: Override, library: Library) -> list[Setting]:
    """One setting per value of an argument."""
    key, choice = override.key_or_group, is_choice(verb, override, library)
    if not override.is_sweep_override():
        return [Setting(key, override.value(), override.input_line or "", choice)]
    parser = OverridesParser.create()
    texts = [f"{key}={value}" for value in alternatives(override, library)]
    return [Setting(key, parser.parse_overrides([text])[0].value(), text, choice) for text in texts]


def _argument(verb: str, override: Override, library: Library) -> str:
    """An argument as Hydra takes it; a free mapping takes new keys without a + being typed."""
    text = override.input_line or ""
    if override.is_hydra_override() or is_choice(verb, override, library):
        if isinstance(override.value(), Glob):
            # Hydra's own expansion would take in the schema's entries of the group as well.
            return f"{override.key_or_group}={','.join(alternatives(override, library))}"
        return text
    field = find(PRIMARIES[verb], override.key_or_group)
    if field is not None and field.is_mapping:
        return "++" + text.lstrip("+")
    return text


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _composition_error(verb: str, library: Library, error: Exception) -> ConfigError:
    """What is wrong with a file, from Hydra's words; a key or a value in ours."""
    if isinstance(error, RecursionError):
        return ConfigError(
            "A YAML file comes up again among its own defaults.",
            where=str(library.extra or library.folders[0]),
            fix="take it out of the defaults: list that leads back to it",
        )
    words = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    named = re.match(r"In '(\w+)/(\w+)'", words[0]) if words else None
    where = library.place(*named.groups()) if named else None
    cause = error.__context__
    key = getattr(cause, "full_key", None)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        if key.startswith("hydra."):
            return ConfigError(f"{key} is not a setting of Hydra.", fix=f"leave {key} out")
        if key == "experiment":
            return ConfigError(
                "An experiment sets keys of other groups, so it has to say that it is global.",
                where=where,
                fix="# @package _global_ as the first line of the file",
            )
        near = closest_key(PRIMARIES[verb], key)
        return ConfigError(
            f"{key} is not a setting" + (f"; the closest is {near}." if near else "."),
            where=where,
            fix=f"take it out of the file, or set {near} there",
        )
    field = find(PRIMARIES[verb], key) if key else None
    if isinstance(cause, ValidationError) and field is not None:
        return ConfigError(
            f"{key} has to be {field.type_words}: {str(cause).splitlines()[0]}.", where=where
        )
    return ConfigError(f"The YAML files do not fit together: {'; '.join(words[:4])}", where=where)
