import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exp.config.schema import Notation, OutputFormat
from exp.data.notation import open_writing
from exp.data.output import canonical
from exp.data.positional import Positional
from exp.errors import DataError

ORDER = {
    "type": "object",
    "properties": {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
        "currency": {"enum": ["pesos", "euros"]},
        "day": {"type": "string"},
    },
    "required": ["lines"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {
                "product": {"type": "string", "minLength": 1},
                "quantity": {"type": "number"},
                "unit": {"enum": ["box", "kg"]},
            },
            "required": ["product"],
            "additionalProperties": False,
        }
    },
}

WRITTEN = [
    (
        {"lines": [{"product": "jute", "quantity": 10}], "currency": "pesos"},
        '[[[" jute",10]]," pesos"]',
    ),
    (
        {"lines": [{"product": "jute", "unit": "kg"}, {"product": "ink"}], "day": "monday"},
        '[[[" jute",null," kg"],[" ink"]],null," monday"]',
    ),
    ({"lines": [{"product": " two  spaces "}]}, '[[["  two  spaces "]]]'),
    ({"day": "monday", "lines": []}, '[[],null," monday"]'),
]


@pytest.mark.parametrize(("output", "written"), WRITTEN)
def test_values_stand_in_the_order_of_the_schema(output: Any, written: str) -> None:
    writing = open_writing(Notation.positional, OutputFormat.json, ORDER)
    assert writing.write(output) == written
    assert canonical(json.loads(writing.read(written))) == canonical(output)


def test_what_is_read_is_the_text_that_plain_json_would_have_been() -> None:
    positional = open_writing(Notation.positional, OutputFormat.json, ORDER)
    plain = open_writing(Notation.json, OutputFormat.json, ORDER)
    for output, _ in WRITTEN:
        assert positional.read(positional.write(output)) == plain.write(output)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"lines": [], "colour": "red"}, "at $.colour, the schema does not have this key"),
        ({"currency": "pesos"}, "at $, the key lines is required"),
        ({"lines": [{"product": "jute", "unit": None}]}, "at $.lines[0].unit, null would read"),
        ({"lines": [{"product": 4}]}, "at $.lines[0].product, a string is asked for"),
        ({"lines": {"product": "jute"}}, "at $.lines, a list is asked for"),
        ({"lines": ["jute"]}, "at $.lines[0], an object is asked for"),
    ],
)
def test_what_the_schema_has_no_place_for_is_refused(output: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        Positional(ORDER).write(output)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('Here you are: [[[" jute",10]]]', '{"lines":[{"product":"jute","quantity":10}]}'),
        ('[[["jute",10]]]', '{"lines":[{"product":"jute","quantity":10}]}'),
        ('[[[" jute","ten"]]]', '{"lines":[{"product":"jute","quantity":"ten"}]}'),
        ('[[[" jute",10," kg",7]]]', '{"lines":[[" jute",10," kg",7]]}'),
        ('{"lines":[]}', '{"lines":[]}'),
        ('[[[" jute"', '[[[" jute"'),
        ("no idea", "no idea"),
        ("[" * 100_000, "[" * 100_000),
        ("[]", "{}"),
    ],
)
def test_whatever_a_model_writes_is_read_as_far_as_it_goes(text: str, read: str) -> None:
    assert open_writing(Notation.positional, OutputFormat.json, ORDER).read(text) == read


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "additionalProperties": False},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "additionalProperties": False,
            "anyOf": [{"required": ["a"]}],
        },
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#/$defs/round", "$defs": {"round": {"$ref": "#/$defs/round"}}},
    ],
)
def test_objects_that_the_schema_does_not_close_stay_as_they_are(schema: dict[str, Any]) -> None:
    output = {"a": "x"}
    assert Positional(schema).write(output) == output
    assert Positional(schema).read(output) == output


def test_a_record_may_hold_others_of_its_kind() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    }
    output = {"name": "a", "children": [{"name": "b"}, {"name": "c", "children": []}]}
    positional = Positional(tree)
    assert positional.write(output) == [" a", [[" b"], [" c", []]]]
    assert positional.read(positional.write(output)) == output
    jsonschema.validate(positional.write(output), positional.grammar)


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> dict[str, Any]:
    """Schemas of all forms that are written by position, and of some that are not."""
    leaves = [
        {"type": "string"},
        {"type": "string", "minLength": 1},
        {"type": "string", "pattern": "^x*$"},
        {"enum": ["p", "q r", ""]},
        {"const": "c"},
        {"enum": ["p", 1, None]},
        {"type": "integer"},
        {"type": ["string", "null"]},
        {"type": "boolean", "title": "t"},
    ]
    if depth == 0:
        return draw(st.sampled_from(leaves))
    kind = draw(st.sampled_from(["leaf", "list", "record", "record", "open", "referred"]))
    if kind == "leaf":
        return draw(st.sampled_from(leaves))
    if kind == "list":
        return {"type": "array", "items": draw(schemas(depth - 1)), "maxItems": 3}
    if kind == "referred":
        return {"$ref": "#/$defs/shared"}
    properties = {key: draw(schemas(depth - 1)) for key in draw(st.sets(st.sampled_from("abcd")))}
    required = sorted(key for key in properties if draw(st.booleans()))
    closed = {"additionalProperties": False} if kind == "record" else {}
    return {"type": "object", "properties": properties, "required": required, **closed}


SHARED = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
    "required": ["s"],
    "additionalProperties": False,
}


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema admits, but for null where a key may be left out."""
    if "$ref" in schema:
        return values(SHARED)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if kind == "object":
        required = {key: values(schema["properties"][key]) for key in schema["required"]}
        optional = {
            key: values(each).filter(lambda value: value is not None)
            for key, each in schema["properties"].items()
            if key not in required
        }
        return st.fixed_dictionaries(required, optional=optional)
    if "pattern" in schema:
        return st.sampled_from(["", "x", "xx"])
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=schema.get("minLength", 0))
    return {
        "string": text,
        "integer": st.integers(-999, 999),
        "boolean": st.booleans(),
    }.get(kind if isinstance(kind, str) else "", st.one_of(text, st.none()))


@settings(deadline=None)
@given(st.data())
@pytest.mark.thorough
def test_any_output_of_any_schema_comes_back(data: st.DataObject) -> None:
    schema = {**data.draw(schemas()), "$defs": {"shared": SHARED}}
    output = data.draw(values(schema))
    positional = Positional(schema)
    jsonschema.validate(output, schema)
    written = json.loads(json.dumps(positional.write(output)))
    assert positional.read(written) == output
    jsonschema.validate(written, positional.grammar)
