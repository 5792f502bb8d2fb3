from typing import Any, cast

import pytest

from exp.config.schema import OutputFormat
from exp.data.key_order import order_keys
from exp.data.output import encode_output

LINE: dict[str, Any] = {"properties": {"producto": {}, "cantidad": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"lineas": {"items": LINE}, "moneda": {}}},
        {
            "properties": {"lineas": {"items": {"$ref": "#/$defs/a~1b"}}, "moneda": {}},
            "$defs": {"a/b": LINE},
        },
        {"allOf": [{"properties": {"lineas": {"items": LINE}}}, {"properties": {"moneda": {}}}]},
        {
            "$ref": "#/$defs/x",
            "$defs": {"x": {"properties": {"lineas": {"items": LINE}, "moneda": {}}}},
        },
        {"properties": {"lineas": {"oneOf": [{"type": "null"}, {"items": LINE}]}, "moneda": {}}},
    ],
)
def test_keys_follow_the_properties_of_the_schema(schema: dict[str, Any]) -> None:
    output = {"extra": 1, "moneda": "ARS", "lineas": [{"cantidad": 2, "otro": 0, "producto": "A"}]}
    assert encode_output(output, OutputFormat.json, schema) == (
        '{"lineas":[{"producto":"A","cantidad":2,"otro":0}],"moneda":"ARS","extra":1}'
    )


def test_keys_without_a_schema_stay_as_given() -> None:
    assert encode_output({"b": 1, "a": 2}, OutputFormat.json) == '{"b":1,"a":2}'


def test_values_of_unnamed_keys_follow_additional_properties() -> None:
    schema = {"additionalProperties": LINE}
    ordered = order_keys({"x": {"cantidad": 1, "producto": "A"}}, schema)
    assert str(ordered) == "{'x': {'producto': 'A', 'cantidad': 1}}"


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"$ref": "#", "properties": {"b": {"$ref": "#"}, "a": {"$ref": "#/nowhere"}}}
    ordered = order_keys({"a": 1, "b": {"a": 1, "b": 2}}, schema)
    assert str(ordered) == "{'b': {'b': 2, 'a': 1}, 'a': 1}"


def test_an_anchor_orders_nothing() -> None:
    schema = {"properties": {"a": {}, "x": {"$ref": "#node"}}}
    assert list(cast(Any, order_keys({"x": {"b": 1, "a": 2}}, schema))["x"]) == ["b", "a"]
