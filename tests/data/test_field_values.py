from decimal import Decimal

from exp.data.field_values import number_values, string_fields


def test_fields_of_an_answer_are_those_with_strings():
    output = {"a": "x", "b": [{"c": "y", "d": 1}, {"c": None}], "e": ["z"]}
    assert string_fields(output) == {("a",), ("b", "[]", "c"), ("e", "[]")}


def test_numbers_are_exact_and_yes_is_none():
    output = {"a": 0.1, "b": [{"c": 2, "d": True}, {"c": None}], "e": ["3"]}
    assert list(number_values(output)) == [(("a",), Decimal("0.1")), (("b", "[]", "c"), 2)]
