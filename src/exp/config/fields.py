"""What settings there are: every field of the schema with its type, default and meaning."""

import ast
import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from exp.config import schema
from exp.config.section import Section

TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. `key` is what is typed, with dots; `doc` is its docstring on one line."""

    key: str
    type: Any
    default: Any
    doc: str

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The members of a union, or the type alone."""
        return (
            typing.get_args(self.type) if isinstance(self.type, types.UnionType) else (self.type,)
        )

    @property
    def is_section(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, Section)

    @property
    def is_mapping(self) -> bool:
        """Whether the keys below it are free: they belong to another library."""
        return typing.get_origin(self.type) is dict

    @property
    def choices(self) -> tuple[str, ...]:
        for kind in self.alternatives:
            if isinstance(kind, type) and issubclass(kind, Enum):
                return tuple(member.name for member in kind)
        return ()

    @property
    def type_words(self) -> str:
        """The type as a person would say it, like "a whole number, or null"."""
        words = []
        for kind in self.alternatives:
            if self.choices and isinstance(kind, type) and issubclass(kind, Enum):
                words.append("one of " + ", ".join(self.choices))
            elif typing.get_origin(kind) is list:
                words.append("a list, like [a,b]")
            elif typing.get_origin(kind) is dict:
                words.append("a mapping, like {key: value}")
            elif kind is types.NoneType:
                words.append("null")
            else:
                words.append(TYPE_WORDS.get(kind, "any value"))
        return ", or ".join(words)


@cache
def _docstrings() -> dict[str, dict[str, str]]:
    """Class name -> field name -> the string under the field, read from the schema's source."""
    tree = ast.parse(Path(inspect.getfile(schema)).read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            docs = found.setdefault(node.name, {})
            for line, after in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(line, ast.AnnAssign)
                    and isinstance(line.target, ast.Name)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    docs[line.target.id] = " ".join(str(after.value.value).split())
    return found


_own: dict[type[Any], tuple[Field, ...]] = {}
_all: dict[type[Any], dict[str, Field]] = {}


def own_fields(section: type[Any]) -> tuple[Field, ...]:
    """The fields of one section, their keys without a prefix."""
    if section not in _own:
        _own[section] = tuple(_read_fields(section))
    return _own[section]


def all_fields(root: type[Any]) -> dict[str, Field]:
    """Every setting and section below `root` by its dotted key, in the schema's order."""
    if root not in _all:
        _all[root] = {}
        for field in own_fields(root):
            _all[root][field.key] = field
            if field.is_section:
                for key, below in all_fields(field.type).items():
                    dotted = f"{field.key}.{key}"
                    _all[root][dotted] = Field(dotted, below.type, below.default, below.doc)
    return _all[root]


def _read_fields(section: type[Any]) -> Iterator[Field]:
    hints = typing.get_type_hints(section)
    for field in dataclass_fields(section):
        docs = [_docstrings().get(base.__name__, {}) for base in section.__mro__]
        doc = next((known[field.name] for known in docs if field.name in known), "")
        default = field.default
        if default is NO_DEFAULT and field.default_factory is not NO_DEFAULT:
            default = field.default_factory()
        yield Field(field.name, hints[field.name], default, doc)


def find(root: type[Section], key: str) -> Field | None:
    """The setting that `key` belongs to; for a key inside a free mapping, the mapping."""
    known = all_fields(root)
    if key in known:
        return known[key]
    for dotted, field in known.items():
        if field.is_mapping and key.startswith(dotted + "."):
            return field
    return None


def closest(word: str, choices: Iterable[str], likeness: float = 0.3) -> str | None:
    """The choice most like a mistyped word, or None where nothing is like it (0 to 1)."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=likeness)
    return matches[0] if matches else None


def closest_key(root: type[Section], key: str) -> str | None:
    """The setting that a mistyped key most likely meant.

    Tried in turn: a typing error within the named section, a meaning there ("rank" for lora.r), the
    same last word elsewhere ("lr" for optimizer.lr), and a likeness anywhere.
    """
    known = all_fields(root)
    section, _, word = key.rpartition(".")
    settings = {name: field for name, field in known.items() if not field.is_section}
    siblings = {
        name.rpartition(".")[2]: field
        for name, field in settings.items()
        if name.rpartition(".")[0] == section
    }
    if section in known:
        near = closest(word, siblings, 0.75) or _by_meaning(word, siblings)
        near = near or closest(word, siblings)
        if near:
            return f"{section}.{near}"
    for name in settings:
        if name.rpartition(".")[2] == word:
            return name
    return closest(key, known)


def _by_meaning(word: str, fields: dict[str, Field]) -> str | None:
    """The setting whose docstring has every part of the word in its first sentence."""
    parts = set(word.lower().split("_"))
    for name, field in fields.items():
        if parts <= set(re.findall(r"[a-z]+", field.doc.partition(".")[0].lower())):
            return name
    return None
