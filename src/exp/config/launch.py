"""Hydra proper: the flags that it answers by itself, and the composition that a verb runs on."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from exp.config.fields import closest
from exp.config.groups import Library
from exp.config.register import register_schema
from exp.errors import ConfigError

REFUSED = {
    "config_path": "exp has its own conf/; add a folder with --config-dir",
    "config_name": "the verb names the configuration; choose an experiment=...",
    "experimental_rerun": "no pickle is ever read; give the overrides again",
}

QUIET = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.sweep.dir=.",
    "hydra.sweep.subdir=.",
    "hydra/hydra_logging=none",
    "hydra/job_logging=none",
)
"""Hydra writes nothing of its own: run folders are the verbs', study folders the sweep's."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Hydra's flags and the key=value arguments, told apart."""

    flags: tuple[str, ...]
    arguments: tuple[str, ...]
    config_dir: str | None
    multirun: bool
    asks: bool
    """Whether a flag only asks for something to be printed."""


def split(verb: str, argv: Sequence[str]) -> CommandLine:
    """Tell flags from key=value arguments, by Hydra's own parser.

    Raises:
        ConfigError: A flag is unknown, lacks its value, or is not for exp.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False
    known = [name for action in parser._actions for name in action.option_strings]
    known.remove("--version")  # Hydra's own
    for word in argv:
        flag = word.partition("=")[0]
        if word.startswith("--") and flag not in known:
            near = closest(word, known)
            raise ConfigError(
                f"{word} is no flag" + (f"; the closest is {near}." if near else "."),
                where=f"command line, {word}",
                fix=f"exp {verb} --help",
            )
    try:
        parser.exit_on_error = False
        parsed, rest = parser.parse_known_intermixed_args(list(argv))
    except (argparse.ArgumentError, SystemExit) as error:
        raise ConfigError(f"{error}.", where="command line", fix=f"exp {verb} --help") from None
    for word in rest:
        raise ConfigError(
            f"{word} is no flag.", where=f"command line, {word}", fix=f"exp {verb} --help"
        )
    modes = [parsed.run, parsed.multirun, parsed.cfg, parsed.info, parsed.hydra_help]
    if sum(map(bool, modes)) > 1 or (parsed.resolve and not parsed.cfg):
        raise ConfigError(
            "These flags do not go together.",
            where=f"command line, {' '.join(word for word in argv if word.startswith('-'))}",
            fix="give one of --cfg, --info, --multirun; --resolve and --package refine --cfg",
        )
    for name, reason in REFUSED.items():
        if getattr(parsed, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is not for exp.", where="command line", fix=reason)
    arguments = tuple(parsed.overrides)
    flags = [word for word in argv if word not in arguments]
    return CommandLine(
        tuple(_without_config_dir(flags, parsed.config_dir)),
        arguments,
        parsed.config_dir,
        parsed.multirun,
        bool(parsed.cfg or parsed.info or parsed.hydra_help),
    )


def _without_config_dir(flags: Sequence[str], folder: str | None) -> Iterator[str]:
    words = iter(flags)
    for word in words:
        if folder is not None and word in ("--config-dir", "-cd"):
            next(words)
        elif folder is None or not word.startswith(("--config-dir=", "-cd=")):
            yield word


def compose(
    verb: str, library: Library, flags: Sequence[str], arguments: Sequence[str]
) -> DictConfig | None:
    """Let Hydra act; the configuration that it composed, or None if it only printed something."""
    composed: list[DictConfig] = []
    run_hydra(verb, library, flags, arguments, composed.append)
    return composed[0] if composed else None


def sweep(
    verb: str,
    library: Library,
    flags: Sequence[str],
    arguments: Sequence[str],
    run_trial: Callable[[int, list[str]], float],
) -> None:
    """Let Hydra's sweeper choose trials; each is run by its number and overrides.

    The trial's score goes back to the sweeper, so that one that optimises can use it.
    """

    def trial(config: DictConfig) -> float:
        job = HydraConfig.get()
        return run_trial(job.job.num, list(job.overrides.task))

    run_hydra(verb, library, flags, arguments, trial)


def run_hydra(
    verb: str,
    library: Library,
    flags: Sequence[str],
    arguments: Sequence[str],
    task: Callable[[DictConfig], Any],
) -> None:
    """Run `hydra.main` on these words instead of on the process's own command line."""
    register_schema()
    folder = str(library.folders[0])
    extra = ["--config-dir", str(library.extra)] if library.extra else []
    given = {word.partition("=")[0] for word in arguments}
    quiet = [word for word in QUIET if word.partition("=")[0] not in given]
    # Flags first: argparse gives up on arguments that continue behind a flag.
    with _command_line([*extra, *flags, *quiet, *arguments]):
        hydra.main(version_base="1.3", config_path=folder, config_name=verb)(task)()


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    """Show Hydra a command line without the verb; the real one is back before the command runs.

    Lightning starts further processes by repeating `sys.argv`, so the verb must be in it.
    """
    original = sys.argv
    sys.argv = [original[0], *words]
    try:
        yield
    finally:
        sys.argv = original
