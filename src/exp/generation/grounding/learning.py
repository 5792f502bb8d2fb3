"""Learn from training rows which fields come out of the input, and in which forms."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from exp.data.augmentation.location import find_value
from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.words import Word, gaps, split_words, strip_accents
from exp.data.field_values import FieldPath, string_values
from exp.data.free_fields import learn_free_fields
from exp.generation.grounding.choices import learn_choices
from exp.generation.grounding.inflection import Taken, learn_inflections
from exp.generation.grounding.numbers import MOST_UNGROUNDED, learn_numbers
from exp.generation.grounding.rules import GroundingRules, StringRules
from exp.records import Example

MOST_ROWS = 2000
"""Rows that rules are learned from, the first ones."""
MOST_KNOWN = 2000
"""Words of answers that a misspelt word may stand for, the most frequent ones."""
COMMON = 20
"""Times that a word is outside of values, and never in one, before no value can end with it."""
SHORTEST_ENDING = 2
"""Letters of such a word: a single letter may be anything."""


def learn_grounding(examples: Iterable[Example], number_words: NumberWords) -> GroundingRules:
    """Learn which fields are words, numbers or choices of the input, and in which forms.

    Args:
        examples: The training rows.
        number_words: How the language of the inputs writes numbers.
    """
    rows = list(islice(examples, MOST_ROWS))
    strings, free_strings = _learn_strings(rows)
    numbers, free_numbers = learn_numbers(rows, number_words)
    left_free = {**free_strings, **free_numbers}
    return GroundingRules(strings, numbers, learn_choices(rows), number_words, left_free)


def _learn_strings(
    rows: Sequence[Example],
) -> tuple[dict[FieldPath, StringRules], dict[FieldPath, float]]:
    fields: dict[FieldPath, StringRules] = {}
    left_free: dict[FieldPath, float] = {}
    for path in sorted(learn_free_fields(rows)):
        rules = _learn_field(rows, path)
        missed = [
            value
            for example in rows
            for value in _values(example, path)
            if not rules.admits(value, example.input)
        ]
        share = len(missed) / sum(len(_values(example, path)) for example in rows)
        if share > MOST_UNGROUNDED:
            left_free[path] = share
        else:
            fields[path] = replace(rules, always=tuple(sorted(set(missed))))
    return fields, left_free


@dataclass(frozen=True)
class _Found:
    """A value in a text: the words that it comes from, and its own."""

    words: Sequence[Word]
    parts: Sequence[Word]
    bare_text: bool


@dataclass
class _Seen:
    """What the rows show of one field.

    Attributes:
        found: Values in their texts.
        values: The words of each value, folded.
        known: Words of values, as values have them, and how often.
        outside: Words of texts that are in no value, folded, and how often.
        joints: What stands between two words of a value, without the white space around it.
    """

    found: list[_Found] = field(default_factory=list)
    values: set[tuple[str, ...]] = field(default_factory=set)
    known: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)
    joints: set[str] = field(default_factory=lambda: {""})

    def add(self, text: str, values: Iterable[str]) -> None:
        """Take in a row's text and its values of the field."""
        words, bare = split_words(text), strip_accents(text) == text
        inside: set[int] = set()
        for value in values:
            parts = split_words(value)
            if not parts:
                continue
            self.values.add(tuple(part.folded for part in parts))
            self.known.update(part.text for part in parts)
            self.joints.update(gap.strip() for gap in gaps(value, parts)[1:-1])
            for first, last in find_value(words, [part.folded for part in parts]):
                inside.update(range(first, last + 1))
                self.found.append(_Found(words[first : last + 1], parts, bare))
        self.outside.update(word.folded for i, word in enumerate(words) if i not in inside)

    def links(self) -> set[str]:
        """Words that are in values, but neither begin nor end one."""
        edges = {word for value in self.values for word in (value[0], value[-1])}
        return {word for value in self.values for word in value[1:-1]} - edges

    def never_last(self) -> set[str]:
        """Words that are common in texts and end no value."""
        ends = {value[-1] for value in self.values}
        return {
            word
            for word, count in self.outside.items()
            if count >= COMMON and len(word) >= SHORTEST_ENDING and word.isalpha()
        } - ends

    def taken(self, links: set[str]) -> tuple[list[Taken], list[Taken]]:
        """What became of words: of those before a linking word, and of those behind one."""
        heads: list[Taken] = []
        linked: list[Taken] = []
        for each in self.found:
            behind = heads
            for word, part in zip(each.words, each.parts, strict=True):
                behind.append(Taken(word.text, part.text, each.bare_text))
                if part.folded in links:
                    behind = linked
        return heads, linked


def _learn_field(rows: Sequence[Example], path: FieldPath) -> StringRules:
    seen = _Seen()
    for example in rows:
        seen.add(example.input, _values(example, path))
    links = seen.links()
    heads, linked = seen.taken(links)
    known = [word for word, _ in seen.known.most_common(MOST_KNOWN)]
    return StringRules(
        inflections=learn_inflections(heads, known),
        linked=learn_inflections(linked, known),
        links=frozenset(links),
        longest=max(map(len, seen.values), default=1),
        joints=frozenset(seen.joints),
        never_last=frozenset(seen.never_last()),
    )


def _values(example: Example, path: FieldPath) -> list[str]:
    return [value for place, value in string_values(example.output) if place == path]
