"""The schema of what one row may write: strings of free choice are words of its own input."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from exp.data.augmentation.words import split_words
from exp.data.free_fields import FieldPath
from exp.data.key_order import local_target
from exp.generation.grounding.rules import GroundingRules

Grammar = dict[str, Any]

MOST_WORDS = 500
"""Of an input. llguidance ends at some 1,500, with "too many expressions"."""

_MARK = "\ue000"
"""Begins what stands for a field until a row is known; no text that a person writes has it."""


class GroundedSchema:
    """A schema with gaps, one per grounded field, that each row fills with a pattern of its own.

    The gaps are put into the task's schema, and only then is the grammar of what is written made of
    it, so that it does not matter how the task's notation moves things about.

    Args:
        schema: The task's JSON Schema.
        grounding: The rules of its fields.
        grammar_of: Makes the grammar of what is written of a schema.

    Attributes:
        unreached: Grounded fields that the schema does not name as a plain property; they are free.
        digest: Changes with anything that can change a row's schema, but for the schema itself.
    """

    def __init__(
        self, schema: Grammar, grounding: GroundingRules, grammar_of: Callable[[Grammar], Grammar]
    ) -> None:
        marked = copy.deepcopy(schema)
        self._rules = {}
        self.unreached: list[FieldPath] = []
        for number, (path, rules) in enumerate(grounding.fields.items()):
            place = _place_of(path, marked)
            if place is None:
                self.unreached.append(path)
                continue
            mark = f"{_MARK}{number}"
            place.clear()
            place["enum"] = [mark]
            self._rules[mark] = rules
        self._grammar = grammar_of(marked)
        self.digest = grounding.digest

    def of(self, text: str) -> Grammar | None:
        """Make the schema of what may be written for an input; None if it has too many words."""
        if len(split_words(text)) > MOST_WORDS:
            return None
        patterns = {mark: rules.pattern(text) for mark, rules in self._rules.items()}
        filled: Grammar = _filled(self._grammar, patterns)
        return filled


def _place_of(path: FieldPath, schema: Grammar) -> Grammar | None:
    """Find what a schema says of a field; None where it says it in more than one way."""
    place: Any = schema
    for key in (*path, None):
        place = _followed(place, schema)
        if not isinstance(place, dict):
            return None
        if key is not None:
            place = place.get("items") if key == "[]" else place.get("properties", {}).get(key)
    return place if place.get("type") == "string" else None


def _followed(place: Any, schema: Grammar) -> Any:
    """Follow references, which may lead to references, and never for ever."""
    seen: list[str] = []
    while isinstance(place, dict) and "$ref" in place and place["$ref"] not in seen:
        seen.append(place["$ref"])
        place = local_target(place["$ref"], schema)
    return place


def _filled(grammar: Any, patterns: Mapping[str, str]) -> Any:
    if isinstance(grammar, list):
        return [_filled(each, patterns) for each in grammar]
    if not isinstance(grammar, dict):
        return grammar
    options = grammar.get("enum")
    if isinstance(options, list) and len(options) == 1 and isinstance(options[0], str):
        # By position, a string is written behind a space.
        space, mark, number = options[0].rpartition(_MARK)
        pattern = patterns.get(mark + number)
        if pattern is not None:
            return {"type": "string", "pattern": f"^{space}{pattern or '[^ ].*'}$"}
    return {key: _filled(value, patterns) for key, value in grammar.items()}
