"""Where in an input an answer's strings of free choice, its numbers and choices may come from.

A small model that is to copy a name it has never seen mangles it, or writes one that it knows. In
grounded decoding such a string can only be words of the input, side by side, in forms that training
answers give to words (`inflection.py`), a number one that the input states (`numbers.py`), and a
choice one that the input speaks of (`choices.py`). What that means for a field is learned from
training rows (`learning.py`); what it means for a row is a pattern or a list, which the grammar
then asks of the field (`schema.py`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.words import Word, gaps, split_words, strip_accents
from exp.data.field_values import FieldPath
from exp.generation.grounding.choices import ChoiceRules
from exp.generation.grounding.inflection import Inflections
from exp.generation.grounding.numbers import NumberRules


@dataclass(frozen=True)
class StringRules:
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
        words, between, bare = _parted(text)
        spans = [self._span(words, between, first, bare) for first in range(len(words))]
        options = dict.fromkeys([*filter(None, spans), *map(_literal, self.always)])
        return f"(?:{'|'.join(options)})" if options else ""

    def admits(self, value: str, text: str) -> bool:
        """Tell whether `pattern` matches a value, looking only where the value may begin."""
        words, between, bare = _parted(text)
        return value in self.always or any(
            re.fullmatch(self._span(words, between, first, bare), value)
            for first, word in enumerate(words)
            if any(map(value.startswith, self.inflections.forms(word.text, bare)))
        )

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


def _parted(text: str) -> tuple[Sequence[Word], Sequence[str], bool]:
    """Words, what stands between them without white space, and whether no word has an accent."""
    words = split_words(text)
    return words, [gap.strip() for gap in gaps(text, words)], strip_accents(text) == text


@dataclass(frozen=True)
class GroundingRules:
    """The rules of all fields whose values come out of the input; others are free.

    Attributes:
        strings: Field -> the rules of its strings.
        numbers: Field -> the rules of its numbers.
        choices: Field -> the rules of its choices.
        number_words: What numbers in inputs are read by.
        left_free: Field -> the share of its values that the input does not have.
    """

    strings: Mapping[FieldPath, StringRules]
    numbers: Mapping[FieldPath, NumberRules]
    choices: Mapping[FieldPath, ChoiceRules]
    number_words: NumberWords
    left_free: Mapping[FieldPath, float]

    @cached_property
    def digest(self) -> str:
        """Changes with anything that can change what is admitted."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()

    def to_plain(self) -> dict[str, Any]:
        """Give the rules as JSON has them; `storage.py` reads them back."""
        return {
            "strings": [[list(path), _plain(rules)] for path, rules in self.strings.items()],
            "numbers": [[list(path), _plain(rules)] for path, rules in self.numbers.items()],
            "choices": [[list(path), _plain(rules)] for path, rules in self.choices.items()],
            "number_words": _plain(self.number_words),
            "left_free": [[list(path), share] for path, share in self.left_free.items()],
        }


def _plain(value: Any) -> Any:
    """What JSON has for rules: sets in order, exact numbers as texts."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Decimal) else value


def _literal(text: str) -> str:
    """Write a text so that it stands for itself, in Python's regular expressions and Rust's."""
    return re.sub(r"([.^$*+?{}\[\]\\|()#&~\-])", r"\\\1", text)
