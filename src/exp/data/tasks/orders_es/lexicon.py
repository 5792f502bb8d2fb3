"""The vocabulary of lexicon.toml as typed values: products with both numbers, units, currencies."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

DAYS = (
    "hoy", "mañana", "lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo",
)  # fmt: skip
"""The values of `entrega`, as in schema.json."""


@dataclass(frozen=True)
class Unit:
    """A container or measure; "unidad" stands for loose pieces and is never in the output."""

    name: str
    gender: str
    forms: tuple[tuple[str, str], ...]
    measure: bool = False
    divisible: bool = False

    @property
    def loose(self) -> bool:
        return self.name == "unidad"


@dataclass(frozen=True)
class Currency:
    name: str
    words: tuple[str, str]
    cents: str
    per_dollar: int
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Products that are ordered in the same units at similar prices, in dollars."""

    kind: str
    units: tuple[str, ...]
    prices: tuple[int, int]


@dataclass(frozen=True)
class Product:
    """A product; `singular` is its canonical name, `kind` is count, mass or code."""

    singular: str
    plural: str
    gender: str
    group: Group

    @property
    def kind(self) -> str:
        return self.group.kind

    @property
    def head(self) -> str:
        return self.singular.split()[0]


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("lexicon.toml").read_text("utf-8"))


@cache
def units() -> dict[str, Unit]:
    """Give the units by canonical name."""
    return {
        name: Unit(name, **{**row, "forms": tuple(map(tuple, row["forms"]))})
        for name, row in _tables()["units"].items()
    }


@cache
def currencies() -> tuple[Currency, ...]:
    """Give the currencies; `name` is the canonical one."""
    return tuple(
        Currency(
            name,
            words=tuple(row["words"]),
            cents=row["cents"],
            per_dollar=row["per_dollar"],
            prefixes=tuple(row["prefixes"]),
            suffixes=tuple(row["suffixes"]),
        )
        for name, row in _tables()["currencies"].items()
    )


@cache
def products(split: str) -> tuple[Product, ...]:
    """Give the products of train, validation or test; no head word is in two of them."""
    found = []
    for row in _tables()["groups"]:
        group = Group(row["kind"], tuple(row["units"]), tuple(row["prices"]))
        for gender, names in row.get(split, {}).items():
            found += [Product(*inflect(name), gender, group) for name in names]
    return tuple(found)


def words_of(table: str, pool: str) -> tuple[str, ...]:
    """Give a plain word list: people, streets or code_nouns."""
    return tuple(_tables()[table][pool])


def inflect(entry: str) -> tuple[str, str]:
    """Read "tornillo(s)" or "lápi[z|ces]" as singular and plural."""
    singular = re.sub(r"\[(.*?)\|.*?\]", r"\1", re.sub(r"\(.*?\)", "", entry))
    plural = re.sub(r"\[.*?\|(.*?)\]", r"\1", re.sub(r"\((.*?)\)", r"\1", entry))
    return singular, plural
