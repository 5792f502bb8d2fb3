"""Where in an input an answer's strings of free choice may come from.

A small model that is to copy a name it has never seen mangles it, or writes one that it knows. In
grounded decoding such a string can only be words of the input, side by side, in forms that training
answers give to words (`inflection.py`). What that means for a field is learned from the training
rows; what it means for a row is a pattern, which the grammar then asks of the field.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from exp.data.augmentation.location import find_value
from exp.data.augmentation.renaming import Path as FieldPath
from exp.data.augmentation.renaming import learn_free_fields, string_values
from exp.data.augmentation.words import Word, gaps, split_words, strip_accents
from exp.errors import CheckpointError
from exp.generation.inflection import Inflections, Taken, learn_inflections
from exp.publish import write_atomically
from exp.records import Example

MOST_ROWS = 2000
"""Rows that rules are learned from, the first ones."""
MOST_KNOWN = 2000
"""Words of answers that a misspelt word may stand for, the most frequent ones."""
COMMON = 20
"""Times that a word is outside of values, and never in one, before no value can end with it."""
MOST_UNGROUNDED = 0.1
"""Share of a field's values that no pattern admits, above which the field is left free."""
SHORTEST_ENDING = 2
"""Letters of such a word: a single letter may be anything."""


@dataclass(frozen=True)
class FieldRules:
    """How the strings of one field come out of an input.

    Attributes:
        inflections: Forms of words.
        linked: Forms of words behind a linking word, which mostly stay as they are.
        links: Linking words, folded, like "de": within values, never at their ends.
        longest: Words of a value at the most.
        joints: What may stand between two words of a value, without the white space around it.
        never_last: Words, folded, that no value ends with.
        always: Values of training rows that their inputs do not spell out.
    """

    inflections: Inflections
    linked: Inflections
    links: frozenset[str]
    longest: int
    joints: frozenset[str]
    never_last: frozenset[str]
    always: tuple[str, ...] = ()

    def pattern(self, text: str) -> str:
        """Write a regular expression of all values that the field may have for an input."""
        words = split_words(text)
        between = [gap.strip() for gap in gaps(text, words)]
        bare = strip_accents(text) == text
        spans = [self._span(words, between, first, bare) for first in range(len(words))]
        options = dict.fromkeys([*filter(None, spans), *map(_literal, self.always)])
        return f"(?:{'|'.join(options)})" if options else ""

    def _span(self, words: Sequence[Word], between: Sequence[str], first: int, bare: bool) -> str:
        """The values that begin at a word: its forms, and behind them those of its neighbours."""
        last = first
        while (
            last + 1 < len(words)
            and last + 1 < first + self.longest
            and between[last + 1] in self.joints
        ):
            last += 1
        links = [place for place in range(first, last) if words[place].folded in self.links]
        pattern = ""
        for place in range(last, first - 1, -1):
            may_end = words[place].folded not in self.never_last
            if not pattern and not may_end:
                continue
            is_linked = bool(links) and place > links[0]
            inflections = self.linked if is_linked else self.inflections
            options = "|".join(map(_literal, inflections.forms(words[place].text, bare)))
            forms = f"(?:{options})"
            joint = "" if place == first else _literal(between[place] or " ")
            behind = f"(?:{pattern})?" if pattern and may_end else pattern
            pattern = joint + forms + behind
        return pattern


@dataclass(frozen=True)
class Grounding:
    """The rules of all fields whose strings come out of the input; others are free.

    Attributes:
        fields: Field -> its rules.
        left_free: Field -> the share of its values that the input does not spell out.
    """

    fields: Mapping[FieldPath, FieldRules]
    left_free: Mapping[FieldPath, float]

    @cached_property
    def digest(self) -> str:
        """Changes with anything that can change a pattern."""
        return hashlib.sha256(_to_json(self).encode()).hexdigest()


def learn_grounding(examples: Iterable[Example]) -> Grounding:
    """Learn from training rows which fields are words of the input, and in which forms."""
    rows = list(islice(examples, MOST_ROWS))
    fields: dict[FieldPath, FieldRules] = {}
    left_free: dict[FieldPath, float] = {}
    for path in sorted(learn_free_fields(rows)):
        rules = _learn_field(rows, path)
        missed = [
            value
            for example in rows
            for value, admitted in _admitted(example, path, rules)
            if not admitted
        ]
        share = len(missed) / sum(len(_values(example, path)) for example in rows)
        if share > MOST_UNGROUNDED:
            left_free[path] = share
        else:
            fields[path] = replace(rules, always=tuple(sorted(set(missed))))
    return Grounding(fields, left_free)


def write_grounding(path: Path, grounding: Grounding) -> None:
    """Write the rules as JSON."""
    write_atomically(path, _to_json(grounding) + "\n")


def read_grounding(path: Path) -> Grounding:
    """Read what `write_grounding` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"What the run learned of the words of its answers cannot be read: {error!r}.",
            where=str(path),
            fix="generation.constrain=schema, or train again: older runs do not have it",
        ) from error


def _learn_field(rows: Sequence[Example], path: FieldPath) -> FieldRules:
    found: list[_Found] = []
    known: Counter[str] = Counter()
    values: set[tuple[str, ...]] = set()
    longest, joints = 1, {""}
    outside: Counter[str] = Counter()
    for example in rows:
        words = split_words(example.input)
        inside: set[int] = set()
        for value in _values(example, path):
            parts = split_words(value)
            if not parts:
                continue
            values.add(tuple(part.folded for part in parts))
            known.update(part.text for part in parts)
            longest = max(longest, len(parts))
            joints.update(gap.strip() for gap in gaps(value, parts)[1:-1])
            for first, last in find_value(words, [part.folded for part in parts]):
                inside.update(range(first, last + 1))
                found.append(_Found(example.input, words[first : last + 1], parts))
        outside.update(word.folded for i, word in enumerate(words) if i not in inside)
    ends = {value[-1] for value in values}
    links = {word for value in values for word in value[1:-1]} - ends - {v[0] for v in values}
    never_last = {
        word
        for word, count in outside.items()
        if count >= COMMON and len(word) >= SHORTEST_ENDING and word.isalpha() and word not in ends
    }
    heads: list[Taken] = []
    linked: list[Taken] = []
    for each in found:
        behind = [part.folded in links for part in each.parts]
        for place, taken in enumerate(each.taken):
            (linked if any(behind[:place]) else heads).append(taken)
    words_of_answers = [word for word, _ in known.most_common(MOST_KNOWN)]
    return FieldRules(
        learn_inflections(heads, words_of_answers),
        learn_inflections(linked, words_of_answers),
        frozenset(links),
        longest,
        frozenset(joints),
        frozenset(never_last),
    )


@dataclass(frozen=True)
class _Found:
    """A value in a text: the words that it comes from, and its own."""

    text: str
    words: Sequence[Word]
    parts: Sequence[Word]

    @property
    def taken(self) -> list[Taken]:
        bare = strip_accents(self.text) == self.text
        pairs = zip(self.words, self.parts, strict=True)
        return [Taken(word.text, part.text, bare) for word, part in pairs]


def _admitted(example: Example, path: FieldPath, rules: FieldRules) -> Iterable[tuple[str, bool]]:
    values = _values(example, path)
    if values:
        admits = re.compile(rules.pattern(example.input)).fullmatch
        yield from ((value, admits(value) is not None) for value in values)


def _values(example: Example, path: FieldPath) -> list[str]:
    return [value for place, value in string_values(example.output) if place == path]


def _literal(text: str) -> str:
    """Write a text so that it stands for itself, in Python's regular expressions and Rust's."""
    return re.sub(r"([.^$*+?{}\[\]\\|()#&~\-])", r"\\\1", text)


def _to_json(grounding: Grounding) -> str:
    def plain(rules: FieldRules) -> dict[str, object]:
        fields = asdict(rules)
        sets = {name: sorted(v) for name, v in fields.items() if isinstance(v, frozenset)}
        return fields | sets

    return json.dumps(
        {
            "fields": [[list(path), plain(rules)] for path, rules in grounding.fields.items()],
            "left_free": [[list(path), share] for path, share in grounding.left_free.items()],
        },
        ensure_ascii=True,
        sort_keys=True,
    )


def _inflections(plain: dict[str, Any]) -> Inflections:
    rules = {
        ending: tuple((cut, put) for cut, put in found)
        for ending, found in plain.pop("rules").items()
    }
    accenting = [(cut, put) for cut, put in plain.pop("accenting")]
    accents = {
        ending: [tuple((place, letter) for place, letter in each) for each in found]
        for ending, found in plain.pop("accents").items()
    }
    return Inflections(rules=rules, accenting=accenting, accents=accents, **plain)


def _from_json(content: dict[str, list[tuple[list[str], Any]]]) -> Grounding:
    fields = {}
    for path, plain in content["fields"]:
        fields[tuple(path)] = FieldRules(
            inflections=_inflections(plain["inflections"]),
            linked=_inflections(plain["linked"]),
            links=frozenset(plain["links"]),
            longest=plain["longest"],
            joints=frozenset(plain["joints"]),
            never_last=frozenset(plain["never_last"]),
            always=tuple(plain["always"]),
        )
    return Grounding(fields, {tuple(path): share for path, share in content["left_free"]})
