"""What a grounded field may be: words of the row's input, in the forms of training answers."""

import json
import re
from dataclasses import asdict

import pytest

from exp.data.augmentation.lexicon import load_number_words
from exp.data.augmentation.number_words import NumberWords
from exp.generation.grounding.learning import learn_grounding
from exp.generation.grounding.rules import GroundingRules
from exp.records import Example

PRODUCT = ("lineas", "[]", "producto")
LEARNED_FROM = 500


@pytest.fixture(scope="module")
def grounding(orders) -> GroundingRules:
    return learn_grounding(orders("train")[:LEARNED_FROM], load_number_words("es", None))


def admits(grounding: GroundingRules, text: str, value: str) -> bool:
    rules = grounding.strings[PRODUCT]
    pattern = rules.pattern(text)
    found = bool(pattern) and re.compile(pattern).fullmatch(value) is not None
    assert rules.admits(value, text) == found
    return found


def test_only_the_strings_of_free_choice_are_grounded(grounding):
    assert list(grounding.strings) == [PRODUCT]
    assert not grounding.left_free


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("quiero dos cajas de zaragüelles finos", "zaragüell fino"),
        ("mándame 12 pulpones gigantes", "pulpón gigante"),
        ("3 PALMATORIAS", "palmatoria"),
        ("veinte unidades del producto QX-77", "QX-77"),
        ("dos tubos de cobalto; y nada mas", "tubo de cobalto"),
    ],
)
def test_names_that_no_training_row_has_are_admitted_in_their_form(grounding, text, value):
    assert admits(grounding, text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mándame 12 palmatorias", "palmatorio grande"),
        ("mándame 12 palmatorias", "tornillo"),  # known, but not in the text
        ("mándame 12 palmatorias", "palmatorias"),  # answers are in the singular
        ("3 palmatorias, 4 candiles", "palmatoria candil"),  # not side by side
        ("palmatorias al precio de 3", "palmatoria al"),  # "al" ends no name
    ],
)
def test_what_the_text_does_not_say_is_not_admitted(grounding, text, value):
    assert not admits(grounding, text, value)


def test_nine_in_ten_names_of_unseen_rows_are_admitted(grounding, orders):
    """The others are misspelt names that no training row has."""
    found = [
        admits(grounding, row.input, line["producto"])
        for row in orders("validation")
        for line in row.output["lineas"]
    ]
    assert sum(found) > 0.9 * len(found)


@pytest.mark.thorough
def test_all_names_that_were_learned_from_are_admitted(grounding, orders):
    for row in orders("train")[:LEARNED_FROM]:
        for line in row.output["lineas"]:
            assert admits(grounding, row.input, line["producto"]), line


def test_a_field_whose_values_are_not_in_the_input_is_left_free():
    examples = [
        Example(str(i), f"text number {i}", {"summary": f"something else {chr(97 + i % 26)}{i}"})
        for i in range(200)
    ]
    found = learn_grounding(examples, NumberWords())
    assert not found.strings
    assert found.left_free[("summary",)] > 0.9


def test_rows_without_such_fields_ground_nothing():
    examples = [Example(str(i), "a text", {"kind": "a"}) for i in range(100)]
    assert learn_grounding(examples, NumberWords()) == GroundingRules({}, {}, {}, NumberWords(), {})


def test_an_input_without_words_admits_what_needs_none(grounding):
    assert not admits(grounding, "", "tornillo")
    assert not admits(grounding, "?!", "tornillo")


def test_signs_of_regular_expressions_in_a_text_are_plain(grounding):
    assert admits(grounding, "2 zorzales (a [3.5] $ + c/u) | 4 * QX-9", "QX-9")


@pytest.mark.thorough
def test_what_is_learned_is_the_same_in_every_process(orders, under_hash_seeds):
    """Sets of strings are in another order in each; the digest is part of a prediction's key."""
    code = """
import json, sys
from exp.data.augmentation.lexicon import load_number_words
from exp.generation.grounding.learning import learn_grounding
from exp.records import Example
rows = [Example(row["id"], row["input"], row["output"]) for row in map(json.loads, sys.stdin)]
print(learn_grounding(rows, load_number_words("es", None)).digest)
"""
    rows = [json.dumps(asdict(row)) for row in orders("train")[:LEARNED_FROM]]
    first, second = under_hash_seeds(code, read="\n".join(rows))
    assert first == second
