"""The settings in words, for `exp explain` and `exp <verb> --help`; no torch, no Hydra."""

import textwrap
from collections.abc import Iterator
from typing import Any

from exp.config.fields import Field, all_fields, closest_key, find, own_fields
from exp.config.groups import Library, read_yaml
from exp.config.plain import to_plain
from exp.config.schema import MISSING, PRIMARIES
from exp.errors import ConfigError

WIDTH = 96

FLAGS = (
    (
        "--cfg job",
        "print the composed configuration and stop; --resolve, --package <key> refine it",
    ),
    ("--info defaults-tree", "print which file contributes what, and stop"),
    ("--multirun, -m", "run every combination of comma-separated values, with a leaderboard"),
    ("--config-dir <folder>", "add a folder of YAML groups of your own (or set EXP_CONF_DIR)"),
    ("--help, -h", "this text; `exp explain <key>` says more about one setting"),
)


def explain(key: str, library: Library) -> str:
    """What a setting means, its type and default, and the files that set it.

    Raises:
        ConfigError: There is no such setting.
    """
    fields = {verb: field for verb, root in PRIMARIES.items() if (field := find(root, key))}
    if not fields and key in library.choices:
        choices = ", ".join(library.choices[key])
        return f"{key}: settings of several groups under one name\n  choices: {choices}"
    if not fields:
        near = next(filter(None, (closest_key(root, key) for root in PRIMARIES.values())), None)
        raise ConfigError(
            f"{key} is not a setting" + (f"; the closest is {near}." if near else "."),
            where=f"exp explain {key}",
            fix=f"exp explain {near}" if near else "exp explain",
        )
    field = next(iter(fields.values()))
    if field.is_section:
        return "\n".join(_section(key, field, library))
    meanings: dict[str, list[str]] = {}
    for verb, field in fields.items():
        meanings.setdefault("\n".join(_setting(key, field, library)), []).append(verb)
    if len(meanings) == 1:
        return next(iter(meanings))
    # A verb may mean something else by the same word.
    return "\n\n".join(
        text.replace("\n", f" (exp {', '.join(verbs)})\n", 1) for text, verbs in meanings.items()
    )


def overview() -> str:
    """All sections and top-level settings, with the verbs that have them."""
    lines = ["Settings; `exp explain <key>` says more about one.", ""]
    verbs: dict[str, list[str]] = {}
    docs: dict[str, str] = {}
    for verb, root in PRIMARIES.items():
        for field in own_fields(root):
            verbs.setdefault(field.key, []).append(verb)
            docs.setdefault(field.key, field.doc)
    for key, doc in docs.items():
        lines += _entry(key, f"{doc} ({', '.join(verbs[key])})")
    return "\n".join(lines)


def verb_help(verb: str, purpose: str, library: Library) -> str:
    """Usage of a verb: its flags, its groups with all choices, its settings."""
    lines = [f"usage: exp {verb} [group=choice ...] [key=value ...] [flags]", "", purpose, ""]
    lines.append("Flags")
    for flag, text in FLAGS:
        lines += _entry(flag, text)
    lines += ["", "Groups: group=choice; the one in [brackets] is taken by default"]
    for group, default in library.groups(verb).items():
        words = [f"[{c}]" if c == default else c for c in library.choices.get(group, {})]
        lines += _entry(group, ", ".join(words))
    lines += ["", "Settings: key=value, with their defaults in the schema"]
    for key, field in all_fields(PRIMARIES[verb]).items():
        if not field.is_section:
            lines += _entry(_with_default(key, field), field.doc)
    return "\n".join(lines)


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    plain = to_plain(value)
    if plain is None:
        return "null"
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, list):
        return "[" + ",".join(map(show, plain)) + "]"
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in plain.items()) + "}"
    return str(plain)


def _setting(key: str, field: Field, library: Library) -> Iterator[str]:
    yield key
    yield from textwrap.wrap(field.doc, WIDTH, initial_indent="  ", subsequent_indent="  ")
    default = show(field.default)
    yield f"  type:    {field.type_words}"
    yield f"  default: {'none, it has to be given' if default == MISSING else default}"
    places = list(_places(key, library))
    for index, (place, value) in enumerate(places):
        yield f"  {'set by:' if index == 0 else '       '}  {place}: {show(value)}"
    if not places:
        yield "  set by:  no file"


def _section(key: str, field: Field, library: Library) -> Iterator[str]:
    yield f"{key}: {field.doc}"
    choices = library.choices.get(key)
    if choices:
        yield f"  choices: {', '.join(choices)}"
    yield ""
    for below in own_fields(field.type):
        yield from _entry(_with_default(f"{key}.{below.key}", below), below.doc)


def _places(key: str, library: Library) -> Iterator[tuple[str, Any]]:
    """The files that set a key, and to what."""
    group, _, rest = key.partition(".")
    for choice, file in library.choices.get(group, {}).items():
        content = read_yaml(file)
        found, value = _lookup(content, rest.split("."))
        if rest and found:
            yield str(library.place(group, choice)), value
    for choice, file in library.choices.get("experiment", {}).items():
        found, value = _lookup(read_yaml(file), key.split("."))
        if found:
            yield str(library.place("experiment", choice)), value


def _lookup(content: Any, parts: list[str]) -> tuple[bool, Any]:
    for part in parts:
        if not isinstance(content, dict) or part not in content:
            return False, None
        content = content[part]
    return True, content


def _with_default(key: str, field: Field) -> str:
    return key if field.default == MISSING else f"{key}={show(field.default)}"


def _entry(name: str, text: str) -> list[str]:
    """A name and its meaning: beside it if there is room, else below."""
    indent = " " * 30
    lines = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent) or [indent]
    if len(name) <= 26:
        lines[0] = f"  {name:<28}{lines[0][30:]}"
        return lines
    return [*textwrap.wrap(name, WIDTH, initial_indent="  ", subsequent_indent="    "), *lines]
