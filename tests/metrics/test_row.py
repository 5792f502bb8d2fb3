from typing import Any

import pytest

from exp.config.schema import OutputFormat
from exp.data.output import compile_schema
from exp.errors import DataError, UserErrors
from exp.metrics.row import RowScore, match_rows, score_row
from exp.records import Example, Prediction

SCHEMA = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}


def judged(text: str, reference: Any, finish_reason: str = "stop", schema: Any = None) -> RowScore:
    prediction = Prediction("1", text, finish_reason, 1)
    output_format = OutputFormat.text if isinstance(reference, str) else OutputFormat.json
    validator = compile_schema(schema) if schema else None
    return score_row(prediction, Example("1", "", reference), output_format, validator)


@pytest.mark.parametrize(
    ("text", "finish_reason", "errors"),
    [
        ('{"a": 1}', "stop", []),
        ('{"a": 1} and so on and on', "length", []),
        ('{"a": 1', "length", ["cut"]),
        ('{"a": 1', "stop", ["unparsable"]),
        ("", "stop", ["unparsable"]),
        ("{}", "stop", ["missing_field", "schema_invalid"]),
        ('{"a": 1, "b": 2}', "stop", ["extra_field"]),
        ('{"a": "1", "b": 2}', "stop", ["extra_field", "wrong_type", "schema_invalid"]),
        ('{"a": 2}', "stop", ["wrong_value"]),
    ],
)
def test_errors_are_named_the_primary_one_first(
    text: str, finish_reason: str, errors: list[str]
) -> None:
    row = judged(text, {"a": 1}, finish_reason, SCHEMA)
    assert list(row.errors) == errors
    assert row.primary_error == (errors[0] if errors else None)
    assert row.exact == (not errors)


def test_a_list_in_another_order_is_an_error_that_costs_no_field() -> None:
    row = judged('{"a": [2, 1]}', {"a": [1, 2]})
    assert list(row.errors) == ["wrong_order"]
    assert (row.comparison.total.tp, row.comparison.total.fp, row.comparison.total.fn) == (2, 0, 0)
    assert not row.exact


def test_an_exact_row_that_breaks_the_schema_is_an_error() -> None:
    row = judged('{"a": "x"}', {"a": "x"}, schema=SCHEMA)
    assert row.exact
    assert list(row.errors) == ["schema_invalid"]


def test_what_cannot_be_read_breaks_the_schema() -> None:
    assert judged("{", {"a": 1}, schema={"type": "object"}).schema_valid is False


def test_without_a_schema_nothing_is_said_about_it() -> None:
    assert judged('{"a": 1}', {"a": 1}).schema_valid is None


@pytest.mark.parametrize(
    ("text", "finish_reason", "errors"),
    [
        (" dos  mil\n", "stop", []),
        ("dos mil", "length", []),
        ("dos", "length", ["cut", "wrong_value"]),
        ("", "stop", ["wrong_value"]),
        ('{"a": 1}', "stop", ["wrong_value"]),
    ],
)
def test_a_text_is_compared_as_a_whole(text: str, finish_reason: str, errors: list[str]) -> None:
    assert list(judged(text, "dos mil", finish_reason).errors) == errors


def prediction(identity: str) -> Prediction:
    return Prediction(identity, "{}", "stop", 1)


def example(identity: str, output: Any = 1) -> Example:
    return Example(identity, "", output)


def test_rows_are_paired_by_id_in_the_order_of_the_references() -> None:
    pairs = match_rows([prediction(i) for i in "cab"], [example(i) for i in "abc"])
    assert [(one.id, other.id) for one, other in pairs] == [("a", "a"), ("b", "b"), ("c", "c")]


@pytest.mark.parametrize(
    ("predictions", "references", "what"),
    [
        ("a", "ab", "examples without a prediction: 1"),
        ("abc", "a", "predictions without an example: 2"),
        ("aab", "ab", "ids that several predictions have: 1"),
        ("ab", "abb", "ids that several examples have: 1"),
        ("", "", "There is no row to score"),
    ],
)
def test_ids_that_do_not_pair_one_to_one_are_refused(
    predictions: str, references: str, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        match_rows([prediction(i) for i in predictions], [example(i) for i in references])


def test_a_reference_without_an_output_is_refused() -> None:
    with pytest.raises(DataError, match="without an output to score against"):
        match_rows([prediction("a")], [example("a", None)])


def test_all_problems_with_ids_are_shown_together() -> None:
    with pytest.raises(UserErrors) as caught:
        match_rows([prediction(i) for i in "aax"], [example(i) for i in "ab"])
    assert len(caught.value.errors) == 3
