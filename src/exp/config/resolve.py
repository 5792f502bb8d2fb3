"""From what Hydra composed to the closed configuration that every other module sees."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from exp.config.check import check
from exp.config.effects import warnings
from exp.config.fields import closest_key, own_fields
from exp.config.overrides import INTERPOLATION, Given, holds_credential
from exp.config.plain import read_config
from exp.config.ranges import ranges, value_at
from exp.config.schema import MISSING, PRIMARIES, OutputFormat
from exp.config.section import Section, close
from exp.errors import CheckpointError, ConfigError, UserError, raise_collected
from exp.records import Derived
from exp.rundir import open_run_dir

FROM_RUN = ("model", "task", "data", "generation", "quantization", "seed")
"""What `run=` brings along: the settings that the run was made with."""
FIXED_BY_RUN = ("model", "task", "quantization")
FREE_WITH_RUN = ("model.path", "task.train", "task.validation", "task.test")
"""Where things lie may change between training and evaluation; what they are may not."""

RESUMED_ANEW = ("hardware", "tracker", "cache")
FREE_WITH_RESUME = ("training.resume", "training.minutes", *RESUMED_ANEW)
"""What a resumed run may change: where and how long it computes, not what."""

TEXT_MONITOR = "exact_match"
"""Takes the place of the schema's `task.monitor` where outputs are text."""

ENVIRONMENT = re.compile(r"\$\{\s*(oc\.)?env\s*:")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration of one command, checked and closed.

    `configs` holds one configuration per run of `run=[...]`, each with its own `run`; otherwise it
    holds `config` alone.
    """

    verb: str
    config: Any
    derived: tuple[Derived, ...] = ()
    warnings: tuple[str, ...] = ()
    configs: tuple[Any, ...] = ()


def resolve(verb: str, config: DictConfig, given: Given | None = None) -> Resolved:
    """Check a composed configuration and turn it into closed dataclasses.

    Raises:
        UserError: Everything that is wrong, collected.
    """
    given = given or Given()
    errors: list[UserError] = [*_strangers(PRIMARIES[verb], config, given)]
    errors += _missing(config, given)
    raise_collected(errors)
    try:
        base = cast(Section, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise ConfigError(
            " ".join(str(error).split("\n")[0].split()) + ".",
            where=_place(error, given),
            fix=f"{error.full_key}=<the value itself>" if error.full_key else None,
        ) from None
    configs: list[Any] = [base]
    derived: tuple[Derived, ...] = ()
    if getattr(base, "run", None) is not None:
        configs, derived = _with_runs(base, given)
    elif verb == "train" and base.training.resume is not None:  # type: ignore[attr-defined]
        configs, derived = _resumed(base, given)
    judged = [(one, _with_places(one, given)) for one in configs]
    for one, places in judged:
        _choose_monitor(one, given.keys())
        errors += check(one, places)
    raise_collected(_unique(errors))
    for one in configs:
        close(one)
    notes = tuple(dict.fromkeys(note for judge in judged for note in warnings(*judge)))
    return Resolved(verb, configs[0], derived, notes, tuple(configs))


def _unique(errors: list[UserError]) -> list[UserError]:
    return list({str(error): error for error in errors}.values())


def _with_places(config: Any, given: Given) -> Given:
    """What was asked for, with the run's own file behind the settings that a run brings along."""
    run = getattr(config, "run", None)
    brought = set(FROM_RUN) - given.chosen()
    if run is None:
        run = getattr(getattr(config, "training", None), "resume", None)
        brought = {field.key for field in own_fields(type(config))} - set(RESUMED_ANEW)
    if run is None:
        return given
    return dataclasses.replace(
        given, places=given.places | dict.fromkeys(brought, f"{run}/config.yaml")
    )


def _choose_monitor(config: Any, typed: set[str]) -> None:
    """Let the best checkpoint of text be chosen by a score that text has."""
    if hasattr(config, "training") and hasattr(config, "task") and "task.monitor" not in typed:
        task = config.task
        if task.output_format is OutputFormat.text and task.monitor == type(task).monitor:
            task.monitor = TEXT_MONITOR


def _place(error: OmegaConfBaseException, given: Given) -> str | None:
    return given.where(error.full_key) if error.full_key else None


def _strangers(kind: type[Section], config: DictConfig, given: Given) -> Iterator[ConfigError]:
    """Keys that are no settings, and text that would not stay what it is."""

    def walk(content: Any, prefix: str, section: type[Section]) -> Iterator[ConfigError]:
        fields = {field.key: field for field in own_fields(section)}
        for name, value in content.items():
            key = f"{prefix}{name}"
            if name not in fields:
                near = closest_key(kind, key)
                yield ConfigError(
                    f"{key} is not a setting" + (f"; the closest is {near}." if near else "."),
                    where=given.where(key),
                    fix=f"{near}=..." if near else f"leave {key} out",
                )
                continue
            if fields[name].is_section:
                yield from walk(value, f"{key}.", fields[name].type)
            else:
                yield from _unsafe(key, value, given)

    yield from walk(OmegaConf.to_container(config, resolve=False), "", kind)


def _unsafe(key: str, content: Any, given: Given) -> Iterator[ConfigError]:
    """Values that would run code, leak a credential, or be replaced by something else."""
    if isinstance(content, dict):
        for name, item in content.items():
            if name == "_target_":
                yield ConfigError(
                    f"{key}._target_ is refused: no setting can name code to run.",
                    where=given.where(f"{key}._target_"),
                    fix="leave it out",
                )
            else:
                yield from _unsafe(f"{key}.{name}", item, given)
    elif isinstance(content, list):
        for item in content:
            yield from _unsafe(key, item, given)
    elif isinstance(content, str):
        if holds_credential(content):
            yield ConfigError(
                f"{key} looks like a credential; the run's files would keep it.",
                where=given.where(key).partition(",")[0],
                fix="give credentials to the library itself: HF_TOKEN=..., `wandb login`",
            )
        if key == "task.instruction" and INTERPOLATION.search(content):
            yield ConfigError(
                "task.instruction holds ${, which would be read as the name of another setting.",
                where=given.where(key),
                fix="put the text into a file: task.instruction_file=<file>",
            )
        elif ENVIRONMENT.search(content):
            yield ConfigError(
                f"{key} takes its value from the environment; the run's files would keep it.",
                where=given.where(key),
                fix=f"{key}=<the value itself>",
            )


def missing(config: DictConfig) -> list[str]:
    """The settings that have neither a value nor a default."""

    def walk(content: Any, prefix: str) -> Iterator[str]:
        if isinstance(content, dict):
            for name, item in content.items():
                yield from walk(item, f"{prefix}.{name}" if prefix else str(name))
        elif content == MISSING:
            yield prefix

    return list(walk(OmegaConf.to_container(config, resolve=False), ""))


def _missing(config: DictConfig, given: Given) -> Iterator[ConfigError]:
    for key in missing(config):
        yield ConfigError(
            f"{key} is not set, and has no default.",
            where=given.places.get(key.partition(".")[0], "command line"),
            fix=f"{key}=...",
        )


def _with_runs(base: Any, given: Given) -> tuple[list[Any], tuple[Derived, ...]]:
    """One configuration per run folder: the run's own settings, then the command line's."""
    errors: list[UserError] = []
    for setting in given.settings:
        section = setting.key.partition(".")[0]
        if section in FIXED_BY_RUN and setting.key not in FREE_WITH_RUN:
            errors.append(
                ConfigError(
                    f"{setting.text} contradicts run=: a run brings its own {section} along.",
                    where=setting.where,
                    fix=f"leave {setting.text} out, or leave run= out",
                )
            )
    runs = base.run if isinstance(base.run, list) else [base.run]
    if not runs or not all(isinstance(run, str) for run in runs):
        errors.append(
            ConfigError(
                f"run is {base.run!r}, but it has to be a run folder or a list of them.",
                where=given.where("run"),
                fix="run=outputs/<task>/<name>, or run=[<folder>,<folder>]",
            )
        )
        raise_collected(errors)
    configs, derived = [], []
    for run in runs:
        try:
            folder = open_run_dir(run)
            configs.append(_overlay(base, run, read_config(folder.config), given))
        except UserError as error:
            errors.append(error)
            continue
        derived.append(Derived("run settings", list(FROM_RUN), f"as in {folder.config}"))
    if errors:  # what was typed beside a run that is not there
        errors += ranges(base, given)
    raise_collected(errors)
    return configs, tuple(derived)


def _resumed(base: Any, given: Given) -> tuple[list[Any], tuple[Derived, ...]]:
    """The settings that the resumed run was started with; what may change comes from `base`."""
    errors: list[UserError] = [
        ConfigError(
            f"{setting.text} contradicts training.resume=: a resumed run keeps its settings.",
            where=setting.where,
            fix=f"leave {setting.text} out, or start a new run without training.resume",
        )
        for setting in given.settings
        if not setting.key.startswith(FREE_WITH_RESUME)
    ]
    raise_collected(errors)
    try:
        folder = open_run_dir(base.training.resume)
    except CheckpointError as error:
        raise CheckpointError(
            error.what,
            where=given.where("training.resume"),
            fix="training.resume=<the folder of the run>, like outputs/<task>/<name>",
        ) from None
    config = _open_copy(read_config(folder.config))
    for name in RESUMED_ANEW:
        setattr(config, name, getattr(base, name))
    config.training.resume = base.training.resume
    config.training.minutes = base.training.minutes
    return [config], (Derived("all other settings", "as before", f"as in {folder.config}"),)


def _overlay(base: Any, run: str, trained: Any, given: Given) -> Any:
    config = dataclasses.replace(
        base, run=run, **{name: _open_copy(getattr(trained, name)) for name in FROM_RUN}
    )
    for setting in given.settings:
        section, _, rest = setting.key.partition(".")
        if section not in FROM_RUN:
            continue
        if setting.is_choice or not rest:
            setattr(config, section, _open_copy(getattr(base, section)))
        else:
            parent, _, name = setting.key.rpartition(".")
            setattr(value_at(config, parent), name, value_at(base, setting.key))
    return config


def _open_copy(value: Any) -> Any:
    if not isinstance(value, Section):
        return value
    names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
    return type(value)(**{name: _open_copy(getattr(value, name)) for name in names})
