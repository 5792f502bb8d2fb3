"""What strategies know of a language: data files that anybody can add to."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from importlib.resources import files
from typing import Any

from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.words import fold, split_words
from exp.data.sources.location import locate
from exp.errors import ConfigError, DataError

FOLDER = files("exp.data.augmentation") / "lexicons"

TABLES = ("small", "scales", "collectives", "fractions")
LISTS = ("feminine", "masculine", "openers", "pointers", "keep")
TEXTS = ("language", "tens_joiner", "hundreds_joiner", "groups", "kept_accents", "keyboard")


@dataclass(frozen=True)
class Lexicon:
    """The words of one language by the part that they play. All but `synonyms` are folded.

    Attributes:
        language: Name of the language in num2words.
        numbers: How numbers are written.
        notations: (decimal mark, thousands mark) pairs in which digits may be written.
        feminine: Endings by which a noun is feminine; number words then agree with it.
        masculine: Endings by which it is masculine.
        synonyms: Groups of phrases that stand for each other.
        openers: Words by which a clause hangs on the one before it.
        pointers: Words that point to another clause, or correct it.
        keep: Words on which an answer may turn, as negations, units and days do.
        kept_accents: Letters that are other letters without their mark.
        keyboard: Rows of keys, divided by spaces, for slips of the finger.
    """

    language: str
    numbers: NumberWords
    notations: tuple[tuple[str, str], ...]
    feminine: tuple[str, ...]
    masculine: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    openers: frozenset[str]
    pointers: frozenset[str]
    keep: frozenset[str]
    kept_accents: str
    keyboard: tuple[str, ...]
    digest: str

    @cached_property
    def phrases(self) -> dict[str, list[tuple[tuple[str, ...], int]]]:
        """First word -> (words of a phrase, its group of synonyms), long phrases first."""
        found: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for number, group in enumerate(self.synonyms):
            for phrase in group:
                words = tuple(word.folded for word in split_words(phrase))
                found.setdefault(words[0], []).append((words, number))
        return {first: sorted(all_, key=lambda p: -len(p[0])) for first, all_ in found.items()}

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """All words that are known; no misspelling may give one of them."""
        synonyms = {
            word.folded for group in self.synonyms for p in group for word in split_words(p)
        }
        return self.numbers.all | self.openers | self.pointers | self.keep | synonyms

    @cached_property
    def near_keys(self) -> dict[str, str]:
        """Letter -> letters beside it on the keyboard."""
        return {
            key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
            for row in self.keyboard
            for i, key in enumerate(row)
        }


def shipped_languages() -> list[str]:
    """The languages that have a lexicon here."""
    return sorted(
        f.name.removesuffix(".toml") for f in FOLDER.iterdir() if f.name.endswith(".toml")
    )


def load_lexicon(language: str | None, path: str | None) -> Lexicon:
    """Read the shipped lexicon of a language, and add the user's to it.

    Tables and lists of the user's file add to the shipped ones; single values replace them.

    Args:
        language: ISO 639-1, from the task.
        path: The user's file, or None.

    Raises:
        ConfigError: There is no lexicon for the language.
        DataError: The user's file is missing or holds something else than a lexicon.
    """
    shipped = shipped_languages()
    if path is None and language not in shipped:
        known = ", ".join(shipped)
        raise ConfigError(
            f"There is no lexicon for task.language={language or 'null'}; shipped are: {known}.",
            where="task.language",
            fix=f"task.language={shipped[0]}, augmentation.lexicon=<a TOML file of your own>, or "
            "augmentation=none",
        )
    content: dict[str, Any] = {}
    if language in shipped:
        content = tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    if path is not None:
        content = _merge(content, _read(path))
    return _build(content, language or "")


def load_number_words(language: str | None, path: str | None) -> NumberWords:
    """Read how a language writes numbers; digits alone where there is no lexicon of it.

    Args:
        language: ISO 639-1, from the task.
        path: The user's file, or None.

    Raises:
        DataError: The user's file is missing or holds something else than a lexicon.
    """
    if path is None and language not in shipped_languages():
        return NumberWords()
    return load_lexicon(language, path).numbers


def _read(path: str) -> dict[str, Any]:
    where = f"augmentation.lexicon={path}"
    try:
        content = tomllib.loads(locate(path, "augmentation.lexicon").read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"The lexicon cannot be read: {error.strerror}.", where=where, fix="check the path"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"The lexicon is not TOML: {error}.", where=where) from None
    if fault := _fault(content):
        raise DataError(
            f"The lexicon {fault}.",
            where=where,
            fix=f"write it like {FOLDER / 'en.toml'}; every key may be absent",
        )
    return content


def _fault(content: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a lexicon's content, if anything is."""
    known = (*TABLES, *LISTS, *TEXTS, "decimal_words", "notations", "synonyms")
    for key, value in content.items():
        if key not in known:
            return f"has the unknown key {key}; known are: {', '.join(known)}"
        if key in TABLES:
            sound = isinstance(value, dict) and all(
                isinstance(v, int | float) and not isinstance(v, bool) and v >= 0
                for v in value.values()
            )
            form = "a table of words and the numbers that they stand for"
        elif key in TEXTS:
            sound, form = isinstance(value, str), "a text"
        elif key == "notations":
            sound = isinstance(value, list) and all(map(_is_notation, value))
            form = (
                "a list of pairs: decimal mark . or , and thousands mark . or , or a space or none"
            )
        elif key == "synonyms":
            sound = isinstance(value, list) and all(
                isinstance(group, list) and len(group) > 1 and all(map(_is_phrase, group))
                for group in value
            )
            form = "a list of lists of two or more texts"
        else:
            sound = isinstance(value, list) and all(isinstance(v, str) for v in value)
            form = "a list of texts"
        if not sound:
            return f"has under {key} something else than {form}"
    return None


def _is_phrase(value: Any) -> bool:
    return isinstance(value, str) and bool(split_words(value))


def _is_notation(value: Any) -> bool:
    """Whether digits in this notation could be read again."""
    match value:
        case ["." | ",", "" | "." | "," | " " | "\u00a0" | "\u202f"]:
            return value[0] != value[1]
    return False


def _merge(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(shipped)
    for key, value in own.items():
        if isinstance(value, dict):
            merged[key] = {**shipped.get(key, {}), **value}
        elif isinstance(value, list):
            merged[key] = [*shipped.get(key, []), *value]
        else:
            merged[key] = value
    return merged


def _build(content: Mapping[str, Any], language: str) -> Lexicon:
    def table(key: str) -> dict[str, Any]:
        return {fold(word): value for word, value in content.get(key, {}).items()}

    def listed(key: str) -> frozenset[str]:
        return frozenset(word.folded for text in content.get(key, []) for word in split_words(text))

    def exact(key: str) -> dict[str, Decimal]:
        return {word: Decimal(str(value)) for word, value in table(key).items()}

    written = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return Lexicon(
        language=content.get("language", language),
        numbers=NumberWords(
            small=table("small"),
            scales=table("scales"),
            collectives=exact("collectives"),
            fractions=exact("fractions"),
            tens_joiner=fold(content.get("tens_joiner", "")),
            hundreds_joiner=fold(content.get("hundreds_joiner", "")),
            decimal_words=listed("decimal_words"),
            groups=content.get("groups", ""),
        ),
        notations=tuple((pair[0], pair[1]) for pair in content.get("notations", [[".", ""]])),
        feminine=tuple(map(fold, content.get("feminine", []))),
        masculine=tuple(map(fold, content.get("masculine", []))),
        synonyms=tuple(tuple(group) for group in content.get("synonyms", [])),
        openers=listed("openers"),
        pointers=listed("pointers"),
        keep=listed("keep"),
        kept_accents=content.get("kept_accents", ""),
        keyboard=tuple(content.get("keyboard", "qwertyuiop asdfghjkl zxcvbnm").split()),
        digest=hashlib.sha256(written.encode()).hexdigest(),
    )
