"""The schema of what one row may write: names, numbers and choices are those of its own input."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeGuard, cast

from jsonschema.protocols import Validator

from exp.data.augmentation.words import split_words
from exp.data.field_values import FieldPath
from exp.data.key_order import local_target
from exp.data.output import compile_schema, schema_errors
from exp.generation.grounding.choices import ChoiceRules, Words, words_of
from exp.generation.grounding.numbers import Number, NumberRules
from exp.generation.grounding.rules import GroundingRules, StringRules
from exp.generation.grounding.surroundings import StatedNumber, stated_numbers

Grammar = dict[str, Any]

MOST_WORDS = 500
"""Of an input. llguidance ends at some 1,500, with "too many expressions"."""

_MARK = "\ue000"
"""Begins what stands for a field until a row is known; no text that a person writes has it."""
_ANNOTATIONS = {"title", "description", "$comment", "examples", "default", "deprecated"}
_SAID_OF_A_STRING = {"type", "minLength", "maxLength", *_ANNOTATIONS}
"""What a pattern can stand beside, in whatever way strings are written."""


class GroundedSchema:
    """A schema with gaps, one per grounded field, that each row fills by its own input.

    The gaps are put into the task's schema, and only then is the grammar of what is written made of
    it, so that it does not matter how the task's notation moves things about.

    Args:
        schema: The task's JSON Schema.
        grounding: The rules of its fields.
        grammar_of: Makes the grammar of what is written of a schema.

    Attributes:
        unreached: Fields of names and numbers that the schema does not name as a plain property, or
            says more of than can be asked together with what a row admits; they are free. So are
            fields of few values of which the schema gives no list.
        digest: Changes with anything that changes a row's schema, but for the schema itself.
    """

    def __init__(
        self, schema: Grammar, grounding: GroundingRules, grammar_of: Callable[[Grammar], Grammar]
    ) -> None:
        marked = copy.deepcopy(schema)
        validator = compile_schema(schema)
        self._gaps: dict[str, _StringGap | _NumberGap | _ChoiceGap] = {}
        self._optional: dict[FieldPath, _ChoiceGap] = {}
        self.unreached: list[FieldPath] = []
        for path, rules in (*grounding.strings.items(), *grounding.numbers.items()):
            place = _place_of(path, marked)
            mark = f"{_MARK}{len(self._gaps)}"
            if isinstance(rules, StringRules) and _is_string(place):
                self._gaps[mark] = _StringGap(rules, place.get("minLength"), place.get("maxLength"))
                place.clear()
                place["enum"] = [mark]
            elif isinstance(rules, NumberRules) and _is_number(place):
                own = validator.evolve(schema=dict(place))
                self._gaps[mark] = _NumberGap(rules, own, _may_be_left_out(path, marked))
                place["$comment"] = mark
            else:
                self.unreached.append(path)
        for path, choices in grounding.choices.items():
            place = _place_of(path, marked)
            if _is_choice(place):
                mark = f"{_MARK}{len(self._gaps)}"
                optional = _may_be_left_out(path, marked)
                self._gaps[mark] = gap = _ChoiceGap(choices, tuple(place["enum"]), optional)
                if optional:
                    self._optional[path] = gap
                place.clear()
                place["enum"] = [mark]
        self._marked, self._grammar_of = marked, grammar_of
        self._grammars: dict[frozenset[FieldPath], Grammar] = {}
        self._number_words = grounding.number_words
        self.digest = grounding.digest

    def of(self, text: str) -> Grammar | None:
        """Make the schema of what may be written for an input; None if it has too many words."""
        if len(split_words(text)) > MOST_WORDS:
            return None
        row = _Row(text, stated_numbers(text, self._number_words), words_of(text))
        fillings = {mark: gap.filling(row) for mark, gap in self._gaps.items()}
        needed = frozenset(path for path, gap in self._optional.items() if gap.is_needed(row))
        filled: Grammar = _filled(self._grammar_with(needed), fillings)
        return filled

    def _grammar_with(self, needed: frozenset[FieldPath]) -> Grammar:
        """The grammar of rows that must have some of the fields that others may leave out."""
        if needed not in self._grammars:
            schema = copy.deepcopy(self._marked)
            for path in sorted(needed):
                _require(path, schema)
            self._grammars[needed] = self._grammar_of(schema)
        return self._grammars[needed]


@dataclass(frozen=True, slots=True)
class _Row:
    """An input, the numbers that it states, and its words."""

    text: str
    stated: frozenset[StatedNumber]
    words: Words


@dataclass(frozen=True, slots=True)
class _StringGap:
    """A field of words of the input; its lengths are the schema's."""

    rules: StringRules
    shortest: int | None
    longest: int | None

    def filling(self, row: _Row) -> Callable[[str], Grammar]:
        pattern = self.rules.pattern(row.text) or "[^ ].*"

        def behind(space: str) -> Grammar:
            filled: Grammar = {"type": "string", "pattern": f"^{space}{pattern}$"}
            if self.shortest is not None:
                filled["minLength"] = self.shortest + len(space)
            if self.longest is not None:
                filled["maxLength"] = self.longest + len(space)
            return filled

        return behind


@dataclass(frozen=True, slots=True)
class _NumberGap:
    """A field of numbers of the input.

    Attributes:
        rules: Which of them.
        own: What the schema says of the field.
        optional: Whether an answer may do without it; where it may not, any number that the input
            states will do if none is this field's, and where it states none, it is free.
    """

    rules: NumberRules
    own: Validator
    optional: bool

    def filling(self, row: _Row) -> Grammar | bool:
        values = self._obeying(self.rules.values(row.stated))
        if not values and not self.optional:
            values = self._obeying(self.rules.all_values(row.stated))
        if values:
            return {"enum": values}
        return False if self.optional else cast(Grammar, self.own.schema)

    def _obeying(self, values: Sequence[Number]) -> list[Number]:
        return [value for value in values if not schema_errors(value, self.own)]


@dataclass(frozen=True, slots=True)
class _ChoiceGap:
    """A field of choices that the input speaks of.

    Attributes:
        rules: What must stand in an input for each.
        options: All of the schema's.
        optional: Whether an answer may do without it; where it may not, and the input speaks of
            none, all are admitted.
    """

    rules: ChoiceRules
    options: tuple[str, ...]
    optional: bool

    def is_needed(self, row: _Row) -> bool:
        """Tell whether the field may not be left out though the schema admits it."""
        return self.rules.needs(row.words) and bool(self._admitted(row))

    def _admitted(self, row: _Row) -> list[str]:
        return [each for each in self.options if self.rules.admits(each, row.words)]

    def filling(self, row: _Row) -> Callable[[str], Grammar | bool]:
        admitted = self._admitted(row)
        if not admitted and not self.optional:
            admitted = list(self.options)

        def behind(space: str) -> Grammar | bool:
            return {"enum": [space + each for each in admitted]} if admitted else False

        return behind


def _is_string(place: Grammar | None) -> TypeGuard[Grammar]:
    return place is not None and place.get("type") == "string" and place.keys() <= _SAID_OF_A_STRING


def _is_choice(place: Grammar | None) -> TypeGuard[Grammar]:
    return (
        place is not None
        and place.keys() <= {"type", "enum", *_ANNOTATIONS}
        and all(isinstance(each, str) for each in place.get("enum", [None]))
    )


def _is_number(place: Grammar | None) -> TypeGuard[Grammar]:
    return place is not None and place.get("type") in ("number", "integer") and "$ref" not in place


def _place_of(path: FieldPath, schema: Grammar) -> Grammar | None:
    """Find what a schema says of a field, and of no other; None where it says so in several ways.

    A definition that others refer to as well is copied, and the field refers to the copy.
    """
    place = _followed(schema, schema)
    for key in path:
        if place is None:
            return None
        inside = place.get("items") if key == "[]" else place.get("properties", {}).get(key)
        place = _followed(inside, schema)
    return place


def _may_be_left_out(path: FieldPath, schema: Grammar) -> bool:
    """Tell whether an object is whole without a field."""
    parent = _place_of(path[:-1], schema)
    return path[-1] != "[]" and parent is not None and path[-1] not in parent.get("required", ())


def _require(path: FieldPath, schema: Grammar) -> None:
    parent = _place_of(path[:-1], schema)
    assert parent is not None  # the field was found in it
    parent["required"] = [*parent.get("required", ()), path[-1]]


def _followed(place: Any, schema: Grammar) -> Grammar | None:
    """Follow references, which may lead to references, and never for ever."""
    seen: set[str] = set()
    while isinstance(place, dict) and "$ref" in place:
        pointer = place["$ref"]
        target = local_target(pointer, schema)
        says_more = place.keys() - {"$ref"} - _ANNOTATIONS
        if pointer in seen or says_more or not isinstance(target, dict):
            return None
        if _references(schema)[pointer] > 1:
            definitions = schema.setdefault("$defs", {})
            name = next(n for i in count() if (n := f"grounded_{i}") not in definitions)
            definitions[name] = target = copy.deepcopy(target)
            place["$ref"] = pointer = f"#/$defs/{name}"
        seen.add(pointer)
        place = target
    return place if isinstance(place, dict) else None


def _references(schema: Any) -> Counter[str]:
    """How often a schema refers to each of its parts."""
    if isinstance(schema, list):
        return sum(map(_references, schema), Counter())
    if not isinstance(schema, dict):
        return Counter()
    inside = sum(map(_references, schema.values()), Counter())
    pointer = schema.get("$ref")
    return inside + Counter([pointer]) if isinstance(pointer, str) else inside


def _filled(grammar: Any, fillings: Mapping[str, Any]) -> Any:
    if isinstance(grammar, list):
        return [_filled(each, fillings) for each in grammar]
    if not isinstance(grammar, dict):
        return grammar
    number = grammar.get("$comment")
    if isinstance(number, str) and number in fillings:
        return fillings[number]
    options = grammar.get("enum")
    if isinstance(options, list) and len(options) == 1 and isinstance(options[0], str):
        # By position, a string is written behind a space.
        space, mark, digits = options[0].rpartition(_MARK)
        if mark + digits in fillings:
            return fillings[mark + digits](space)
    return {key: _filled(value, fillings) for key, value in grammar.items()}
