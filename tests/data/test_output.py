import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.config.schema import OutputFormat
from exp.data.output import (
    MAX_DEPTH,
    ParseFailure,
    canonical,
    compile_schema,
    encode_output,
    normalise,
    parse_output,
    schema_errors,
)
from exp.errors import DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
OUTPUTS = st.lists(VALUES, max_size=4) | st.dictionaries(TEXTS, VALUES, max_size=4)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(OUTPUTS)
@pytest.mark.thorough
def test_what_is_written_is_read_back_as_the_same_output(output: Any) -> None:
    value, failure = parse_output(encode_output(output, OutputFormat.json))
    assert failure is None
    assert canonical(value) == canonical(output)


@given(OUTPUTS, st.text(st.characters(exclude_characters="[{")), TEXTS)
def test_chatter_around_the_json_changes_nothing(output: Any, before: str, after: str) -> None:
    text = encode_output(output, OutputFormat.json)
    assert parse_output(before + text + after) == parse_output(text)


def test_json_is_compact_with_characters_as_they_are() -> None:
    output = {"artículo": "café", "cantidad": 50.0, "precio": 1.5, "líneas": [1, True, None]}
    assert encode_output(output, OutputFormat.json) == (
        '{"artículo":"café","cantidad":50,"precio":1.5,"líneas":[1,true,null]}'
    )


def test_a_text_output_is_the_string_itself() -> None:
    assert encode_output(" a \n", OutputFormat.text) == " a \n"


@pytest.mark.parametrize(
    "output",
    [
        None,
        5,
        "a string",
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": 10**400},
        {"a": {1, 2}},
        {1: "a"},
        {"a": "\ud800"},
        {"\udfff": 1},
        nested(MAX_DEPTH + 1),
    ],
)
def test_an_output_that_could_not_be_read_back_is_refused(output: Any) -> None:
    with pytest.raises(DataError):
        encode_output(output, OutputFormat.json)


@pytest.mark.parametrize("output", [None, 5, {"a": 1}, "\ud800"])
def test_a_text_output_that_is_no_text_is_refused(output: Any) -> None:
    with pytest.raises(DataError):
        encode_output(output, OutputFormat.text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Claro:\n```json\n{"a": [1, {"b": "]}"}]}\n```\nListo.', {"a": [1, {"b": "]}"}]}),
        ("[1, 2] [3]", [1, 2]),
        ('as in [1st] and {name}: {"a": 1}', {"a": 1}),
        ('{"a": "\\"{"}', {"a": '"{'}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, nested(MAX_DEPTH)),
        ("{}", {}),
    ],
)
def test_the_first_complete_json_of_a_text_is_read(text: str, value: Any) -> None:
    assert parse_output(text) == (value, None)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", ParseFailure.no_json),
        ("sin datos", ParseFailure.no_json),
        ("5", ParseFailure.no_json),
        ('{"producto": "A", "canti', ParseFailure.incomplete),
        ('{"pedido": {"producto": "A"}', ParseFailure.incomplete),
        ('{"a": "never closed}', ParseFailure.incomplete),
        ("{'a': {\"b\": 1}}", ParseFailure.syntax),
        ('{"a": 1,}', ParseFailure.syntax),
        ('{"a": "raw\nbreak"}', ParseFailure.syntax),
        ('{"a": 1]', ParseFailure.syntax),
        ('{"a": "\\\n"}', ParseFailure.syntax),
        ('{"a": 1, "a": 1}', ParseFailure.duplicate_key),
        ('{"b": {"a": 1, "a": 2}}', ParseFailure.duplicate_key),
        ('{"a": NaN}', ParseFailure.number),
        ('{"a": -Infinity}', ParseFailure.number),
        ('{"a": 1e999}', ParseFailure.number),
        ('{"a": ' + "9" * 10_000 + "}", ParseFailure.number),
        ('{"a": -' + "9" * 10_000 + "}", ParseFailure.number),
        ('{"a": "\\ud800"}', ParseFailure.surrogate),
        ('{"a": "\ud800"}', ParseFailure.surrogate),
        ('{"\\udc00": 1}', ParseFailure.surrogate),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), ParseFailure.too_deep),
        ("[" * 100_000 + "]" * 100_000, ParseFailure.too_deep),
        ('{"a":' * 100_000, ParseFailure.too_deep),
    ],
)
def test_what_cannot_be_accepted_is_named(text: str, failure: ParseFailure) -> None:
    assert parse_output(text) == (None, failure)


@pytest.mark.parametrize("text", ["[x]", '"', '{"\\', '{"a":"\\"', "[]x{", '{"a', "[1,", "{x}\n"])
@pytest.mark.thorough
def test_reading_takes_time_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    parse_output(text * 100_000)
    parse_output("{" + text[1:] * 100_000)
    assert time.process_time() - start < 2


@given(st.text(st.sampled_from('{}[]",:\\ud80e1-.NaInfty \n\ud800é')))
def test_reading_never_raises(text: str) -> None:
    value, failure = parse_output(text)
    assert (value is None) == (failure is not None)
    if failure is None:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 50.0}, {"a": 50}),
        ({"a": 1e16}, {"a": 10**16}),
        ({"a": -0.0}, {"a": 0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": "cafe\u0301"}, {"a": "café"}),
        ({"a": " dos\n mil "}, {"a": "dos mil"}),
    ],
)
def test_equal_outputs_have_one_canonical_form(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "50"}, {"a": 50}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": "A"}, {"a": "a"}),
        ({"a": 2**53}, {"a": 2**53 + 1}),
        ({"a ": 1}, {"a": 1}),
    ],
)
def test_different_outputs_have_different_canonical_forms(one: Any, other: Any) -> None:
    assert canonical(one) != canonical(other)


@given(VALUES)
@pytest.mark.thorough
def test_normalising_twice_changes_nothing(value: Any) -> None:
    assert canonical(normalise(value)) == canonical(value)


def test_schema_errors_name_the_path() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]}
    errors = schema_errors({"a": [1, "x"]}, compile_schema(schema))
    assert sorted(errors) == [
        "$.a[1]: 'x' is not of type 'integer'",
        "$: 'b' is a required property",
    ]
    assert schema_errors({"a": [1.0], "b": 0}, compile_schema(schema)) == []


@pytest.mark.parametrize(
    "schema",
    [
        *({"type": "objekt"}, {"pattern": "("}, {"properties": {"a": {"minimum": "1"}}}),
        *({"$schema": 5}, {"$schema": ["https://json-schema.org/draft/2020-12/schema"]}),
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not a valid JSON Schema"):
        compile_schema(schema)


def test_a_schema_outside_the_schema_is_refused_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    validator = compile_schema({"$ref": "https://schema.invalid/x.json"})
    with pytest.raises(DataError, match=r"schema\.invalid"):
        schema_errors({}, validator)
    assert fetched == []


def test_a_schema_that_leads_back_to_itself_is_an_error() -> None:
    with pytest.raises(DataError, match="without end"):
        schema_errors({}, compile_schema({"$ref": "#"}))


def test_the_deepest_output_fits_a_recursive_schema() -> None:
    node = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/node"}}]}
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    assert schema_errors(nested(MAX_DEPTH), compile_schema(schema)) == []
