"""Where in an input an answer's strings of free choice may come from.

A small model that is to copy a name it has never seen mangles it, or writes one that it knows. In
grounded decoding such a string can only be words of the input, side by side, in forms that training
answers give to words (`inflection.py`). What that means for a field is learned from the training
rows (`learning.py`); what it means for a row is a pattern, which the grammar then asks of the field
(`schema.py`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from exp.data.augmentation.words import Word, gaps, split_words, strip_accents
from exp.data.free_fields import FieldPath
from exp.generation.grounding.inflection import Inflections


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
class GroundingRules:
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
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()

    def to_plain(self) -> dict[str, list[Any]]:
        """Give the rules as JSON has them; `storage.py` reads them back."""
        return {
            "fields": [[list(path), _plain(rules)] for path, rules in self.fields.items()],
            "left_free": [[list(path), share] for path, share in self.left_free.items()],
        }


def _plain(rules: FieldRules) -> dict[str, Any]:
    fields = asdict(rules)
    return fields | {name: sorted(v) for name, v in fields.items() if isinstance(v, frozenset)}


def _literal(text: str) -> str:
    """Write a text so that it stands for itself, in Python's regular expressions and Rust's."""
    return re.sub(r"([.^$*+?{}\[\]\\|()#&~\-])", r"\\\1", text)
