"""The command line: verb -> command, imported only when asked for; errors without a traceback."""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exp import __version__
from exp.config.quoting import quoted
from exp.errors import ConfigError, HardwareError, UserError


@dataclass(frozen=True, slots=True)
class Verb:
    """A first word on the command line.

    Attributes:
        configured: The rest is key=value, for Hydra.
        second_word: The setting that a second word without = is the value of.
        verbatim: Settings whose value is a text that is taken as it is typed.
        short: Words that stand for longer ones.
    """

    purpose: str
    configured: bool = False
    second_word: str | None = None
    verbatim: tuple[str, ...] = ()
    short: tuple[tuple[str, str], ...] = ()


VERBS = {
    "train": Verb("Fine-tune an adapter, and score it before and after.", configured=True),
    "evaluate": Verb("Score a run, several runs, or a base model.", configured=True),
    "predict": Verb("Write completions for a file of inputs.", configured=True),
    "plan": Verb(
        "Say what a run would need in memory and time, without running it.",
        configured=True,
        short=(("hardware=all", "profiles=all"),),
    ),
    "audit": Verb("Look through a data set for what would hurt training.", configured=True),
    "augment": Verb(
        "Show variants of training inputs, and what made them.",
        configured=True,
        verbatim=("text", "output"),
    ),
    "bench": Verb(
        "Measure training or generation on this machine.", configured=True, second_word="what"
    ),
    "cache": Verb("Look at, verify or clear the prediction cache."),
    "explain": Verb("Say what a setting means, its default, and the files that set it."),
    "doctor": Verb("Check what this machine can do, and what is missing.", configured=True),
}

LIBRARY_SETTINGS = {
    # Idle OpenMP threads spin for milliseconds before they sleep; beside another busy process that
    # starves the threads they wait for. Read by libgomp when torch loads it.
    "GOMP_SPINCOUNT": "10000",
    # Kernels that torch's oneDNN keeps, one per shape; each holds memory, and with its own 1024
    # that of a long run grows by some 1.5 GiB. One forward needs some twenty.
    "LRU_CACHE_CAPACITY": "128",
}
"""Environment variables that native libraries read once; what the user has set stays."""

DECODING_SETTINGS = LIBRARY_SETTINGS | {
    "LRU_CACHE_CAPACITY": "32",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
"""The same for verbs that only decode: each forward has another number of tokens there, so kernels
are seldom met again, and a long file would fill memory with them. Training steps need more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; exit code 0, 1 for a failed run, 2 for a mistake that the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    settings = DECODING_SETTINGS if words[:1] in (["evaluate"], ["predict"]) else LIBRARY_SETTINGS
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    original = sys.argv
    sys.argv = [original[0], *words]
    try:
        return _dispatch(words)
    except UserError as error:
        if os.environ.get("EXP_FULL_ERROR") == "1":
            traceback.print_exc()
        else:
            from exp.redaction import redact

            print(redact(str(error)), file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        # By its name: importing torch for this would cost every command a second.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print(_out_of_memory(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, like `head`, has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        sys.argv = original


def verbs() -> dict[str, Verb]:
    """The verbs whose command is there."""
    folder = Path(__file__).parent / "commands"
    return {
        name: verb
        for name, verb in VERBS.items()
        if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
    }


def _out_of_memory(error: RuntimeError) -> HardwareError:
    """What to try where memory ran out in loading or decoding; a training step says it itself."""
    return HardwareError(
        f"The device ran out of memory: {str(error).strip().splitlines()[0]}",
        where="hardware",
        fix="generation.slots=8, quantization=nf4, or a smaller model (exp plan hardware=all)",
    )


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"exp {__version__}")
        return 0
    if {"-sc", "--shell_completion"} & set(words):
        from exp.config.completion import complete

        return complete(words, list(verbs()))
    name, rest = words[0], words[1:]
    if name not in verbs():
        from exp.config.fields import closest

        near = closest(name, verbs())
        raise ConfigError(
            f"{name} is no verb of exp" + (f"; the closest is {near}." if near else "."),
            where="command line",
            fix=f"exp {near}" if near else f"one of: {', '.join(verbs())} (see exp --help)",
        )
    if VERBS[name].second_word and rest and re.fullmatch(r"\w+", rest[0]):
        rest = [f"{VERBS[name].second_word}={rest[0]}", *rest[1:]]
    if VERBS[name].configured:
        return _configured(name, [dict(VERBS[name].short).get(word, word) for word in rest])
    return int(importlib.import_module(f"exp.commands.{name}").main(rest))


def _configured(verb: str, words: list[str]) -> int:
    """Judge the command line, let Hydra compose, and only then import the command and run it."""
    from exp.config.groups import open_library

    if {"-h", "--help"} & set(words):
        from exp.config.explain import verb_help

        print(verb_help(verb, VERBS[verb].purpose, open_library(_config_dir(words))))
        return 0

    from exp.config.launch import compose, split
    from exp.config.preflight import preflight
    from exp.config.resolve import resolve

    line = split(verb, [_quoted(word, VERBS[verb].verbatim) for word in words])
    library = open_library(line.config_dir)
    checked = preflight(verb, line.arguments, library, sweep=line.multirun, asks=line.asks)
    if line.multirun and not line.asks:
        from exp.commands.sweep import run_study

        return run_study(verb, line.flags, checked, library)
    if line.flags or any(word.lstrip("+~").startswith("hydra") for word in checked.arguments):
        config = compose(verb, library, line.flags, checked.arguments)
        if config is None:
            return 0
        resolved = resolve(verb, config, checked.given)
    else:
        # Hydra itself has nothing to do beyond the composition that was judged already.
        (resolved,) = checked.trials
    for warning in resolved.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    from exp.commands.console_log import log_to_console

    log_to_console()  # before the command's libraries are imported, which have things to say
    return int(importlib.import_module(f"exp.commands.{verb}").run(resolved))


def _quoted(word: str, verbatim: tuple[str, ...]) -> str:
    """Quote the value of a setting that is a text: it may hold commas, braces and dollar signs."""
    key, equals, value = word.partition("=")
    if key not in verbatim or not equals or value == "null" or re.fullmatch(r"'.*'", value, re.S):
        return word
    # Backslashes mean something to OmegaConf before ${, and to Hydra before a quote.
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return f"{key}={quoted(value)}"


def _config_dir(words: list[str]) -> str | None:
    """The value of --config-dir, read without Hydra's parser."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word in ("--config-dir", "-cd"):
            return after
        if word.startswith(("--config-dir=", "-cd=")):
            return word.partition("=")[2]
    return None


def _help() -> str:
    lines = [
        "usage: exp <verb> [arguments]",
        "",
        "Fine-tune small causal language models with LoRA on text -> structured output.",
        "",
    ]
    lines += [f"  {name:<10}{verb.purpose}" for name, verb in verbs().items()]
    lines += [
        "",
        "`exp <verb> --help` lists its groups, choices and settings; `exp --version` the version.",
        "EXP_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(lines)
