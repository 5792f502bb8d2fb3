"""Outputs by position: values in the order of the schema, without the keys that it knows anyway.

{"lineas":[{"producto":"yute","cantidad":10}],"moneda":"pesos"} becomes [[[" yute",10]]," pesos"].
It is JSON as well, about half as long, so that training and decoding take as much less, and what a
model has to learn of it is the values alone. A string begins with a space, as words in running text
do: what a completion copies from the input is then the same tokens.

Only what the schema closes is written so: objects whose `properties` are all that they may have.
Everything else stays as it is. A value that is left out is null, or nothing at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exp.data.key_order import local_target
from exp.errors import DataError
from exp.records import Json

_SAID_OF_ANYTHING = {
    *("title", "description", "$comment", "examples", "default", "deprecated"),
    *("$schema", "$id", "$defs", "definitions"),
}
_SAID_OF_A_RECORD = {"type", "properties", "required", "additionalProperties"}
_SAID_OF_A_LIST = {"type", "items", "minItems", "maxItems", "uniqueItems"}
_SAID_OF_A_WORD = {"type", "enum", "const", "minLength", "maxLength"}


@dataclass(frozen=True)
class Plain:
    """A value that stays as it is."""

    schema: Any


@dataclass(frozen=True)
class Word:
    """A string, written behind one space."""

    schema: Mapping[str, Any]


@dataclass(frozen=True)
class List:
    """A list, written item by item."""

    schema: Mapping[str, Any]
    item: "Shape"


@dataclass(frozen=True)
class Record:
    """An object, written as the list of its values.

    Attributes:
        values: What stands at each position, by key.
        required: Keys that are never left out.
    """

    values: "Mapping[str, Shape]"
    required: frozenset[str]


@dataclass(frozen=True)
class Reference:
    """What the schema says elsewhere: `pointer` leads there."""

    pointer: str


Shape = Plain | Word | List | Record | Reference


class Positional:
    """Writes outputs of one schema by position, and reads them back.

    Attributes:
        grammar: The JSON Schema of what is written.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._referred: dict[str, Shape] = {}
        self._shape = self._shape_of(schema)
        self.grammar = self._grammar()

    def write(self, output: Json) -> Json:
        """Write an output by position.

        Raises:
            DataError: The schema has no place for something in it, or it has a null where a value
                may be left out, which would read as if it were.
        """
        return self._write(output, self._shape, "$")

    def read(self, written: Json) -> Json:
        """Read what a model wrote; what does not stand where the schema has it stays as it is."""
        return self._read(written, self._shape)

    def legend(self) -> Json:
        """Say what stands where, and nothing else of the schema: limits may change and be read."""
        referred = {pointer: _legend(shape) for pointer, shape in self._referred.items()}
        return [_legend(self._shape), referred]

    def _shape_of(self, schema: Any) -> Shape:
        if not isinstance(schema, dict):
            return Plain(schema)
        said = schema.keys() - _SAID_OF_ANYTHING
        if said == {"$ref"}:
            return self._refer(schema["$ref"])
        kind = schema.get("type")
        if kind == "object" and said <= _SAID_OF_A_RECORD and _is_closed(schema):
            values = {key: self._shape_of(value) for key, value in schema["properties"].items()}
            return Record(values, frozenset(schema.get("required", ())))
        if kind == "array" and said <= _SAID_OF_A_LIST and isinstance(schema.get("items"), dict):
            return List(schema, self._shape_of(schema["items"]))
        if said <= _SAID_OF_A_WORD and _is_a_word(schema):
            return Word(schema)
        return Plain(schema)

    def _refer(self, pointer: Any) -> Shape:
        target = local_target(pointer, self._root)
        if not isinstance(target, dict) or "$ref" in target:
            return Plain({"$ref": pointer})
        if pointer not in self._referred:
            # Known before it is gone into: a record may hold others of its kind.
            self._referred[pointer] = Plain(target)
            self._referred[pointer] = self._shape_of(target)
        return Reference(pointer)

    def _write(self, value: Json, shape: Shape, path: str) -> Json:
        match shape:
            case Reference(pointer):
                return self._write(value, self._referred[pointer], path)
            case Word():
                if not isinstance(value, str):
                    raise _no_place(path, "a string is asked for")
                return f" {value}"
            case List(item=item):
                if not isinstance(value, list):
                    raise _no_place(path, "a list is asked for")
                return [self._write(v, item, f"{path}[{i}]") for i, v in enumerate(value)]
            case Record(values, required):
                return self._write_record(value, values, required, path)
        return value

    def _write_record(
        self, value: Json, values: Mapping[str, Shape], required: frozenset[str], path: str
    ) -> Json:
        if not isinstance(value, dict):
            raise _no_place(path, "an object is asked for")
        for key in value:
            if key not in values:
                raise _no_place(f"{path}.{key}", "the schema does not have this key")
        written: list[Json] = []
        for key, shape in values.items():
            if key in value:
                if value[key] is None and key not in required:
                    raise _no_place(f"{path}.{key}", "null would read as if the key were left out")
                written.append(self._write(value[key], shape, f"{path}.{key}"))
            elif key in required:
                raise _no_place(path, f"the key {key} is required")
            else:
                written.append(None)
        names = list(values)
        while written and written[-1] is None and names[len(written) - 1] not in value:
            written.pop()
        return written

    def _read(self, value: Json, shape: Shape) -> Json:
        match shape:
            case Reference(pointer):
                return self._read(value, self._referred[pointer])
            case Word():
                return value.removeprefix(" ") if isinstance(value, str) else value
            case List(item=item) if isinstance(value, list):
                return [self._read(each, item) for each in value]
            case Record(values, required) if isinstance(value, list) and len(value) <= len(values):
                return {
                    key: self._read(each, values[key])
                    for key, each in zip(values, value, strict=False)
                    if each is not None or key in required
                }
        return value

    def _grammar(self) -> dict[str, Any]:
        names = {pointer: f"positional_{number}" for number, pointer in enumerate(self._referred)}
        definitions = {
            names[pointer]: self._schema_of(shape, names)
            for pointer, shape in self._referred.items()
        }
        grammar: dict[str, Any] = self._schema_of(self._shape, names)
        kept = self._root.get("$defs", {})
        # The root's own keywords stay beside it: what is kept plain may refer to its definitions.
        others = {k: v for k, v in self._root.items() if k in ("$schema", "$id", "definitions")}
        return {**others, **grammar, "$defs": {**kept, **definitions}}

    def _schema_of(self, shape: Shape, names: Mapping[str, str]) -> Any:
        match shape:
            case Reference(pointer):
                return {"$ref": f"#/$defs/{names[pointer]}"}
            case Plain(schema):
                return schema
            case Word(schema):
                return _behind_a_space(schema)
            case List(schema, item):
                kept = {k: v for k, v in schema.items() if k in _SAID_OF_A_LIST}
                return {**kept, "items": self._schema_of(item, names)}
            case Record(values, required):
                places = []
                fewest = 0
                for number, (key, each) in enumerate(values.items(), start=1):
                    place = self._schema_of(each, names)
                    if key in required:
                        fewest = number
                    else:
                        place = {"anyOf": [place, {"type": "null"}]}
                    places.append(place)
                return {
                    "type": "array",
                    "prefixItems": places,
                    "items": False,
                    "minItems": fewest,
                    "maxItems": len(places),
                }


def _legend(shape: Shape) -> Json:
    match shape:
        case Reference(pointer):
            return pointer
        case List(item=item):
            return ["list", _legend(item)]
        case Record(values, required):
            return [[key, key in required, _legend(each)] for key, each in values.items()]
    return type(shape).__name__


def _is_closed(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("properties")) and schema.get("additionalProperties") is False


def _is_a_word(schema: Mapping[str, Any]) -> bool:
    """Whether the schema admits strings alone."""
    if schema.get("type") == "string":
        return True
    if "const" in schema:
        return isinstance(schema["const"], str)
    options = schema.get("enum", ())
    return bool(options) and all(isinstance(option, str) for option in options)


def _behind_a_space(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "const" in schema:
        return {"const": f" {schema['const']}"}
    if "enum" in schema:
        return {"enum": [f" {option}" for option in schema["enum"]]}
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", "")
    # As a pattern: lengths beside a pattern are more than grammars know.
    return {"type": "string", "pattern": rf"^ [\s\S]{{{shortest},{longest}}}$"}


def _no_place(path: str, reason: str) -> DataError:
    return DataError(
        f"The output cannot be written by position: at {path}, {reason}.",
        fix="mend the row or task.schema, or task.notation=json",
    )
