"""The output format of a task: what the model is trained to write, and what is read from it.

Writing is strict: an output that could not be read back is a DataError. Reading never raises: a
text is either a value or a failure with a name. Two outputs are the same where their canonical
forms are; every score uses that one meaning of equality.
"""

import json
import re
import unicodedata
from enum import StrEnum
from math import isfinite
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from exp.config.schema import OutputFormat
from exp.data.key_order import order_keys
from exp.errors import DataError
from exp.records import Json

# Deeper than any useful output, and far from where json and jsonschema run out of stack.
MAX_DEPTH = 64

_BRACKET = re.compile(r"[\[{]")
# Possessive, so that an unterminated string of any length is given up in one pass.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}"]', re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class ParseFailure(StrEnum):
    """Why a text gives no value."""

    no_json = "no_json"
    incomplete = "incomplete"
    syntax = "syntax"
    duplicate_key = "duplicate_key"
    number = "number"
    surrogate = "surrogate"
    too_deep = "too_deep"


class _Refused(Exception):
    """Raised inside the decoder's hooks: well-formed for json.loads, but not accepted here."""

    def __init__(self, failure: ParseFailure) -> None:
        super().__init__(failure)
        self.failure = failure


def encode_output(
    output: Json, output_format: OutputFormat, key_order: dict[str, Any] | None = None
) -> str:
    """Write an output as the text that the model is trained to complete.

    JSON is compact: white space costs a sixth of a completion's tokens and says nothing. Integral
    floats are written as integers, characters as themselves.

    Args:
        output: An object or array for json, a string for text.
        output_format: The task's output format.
        key_order: A JSON Schema whose `properties` give the order of keys; other keys follow in
            the order given. None keeps the order given.

    Raises:
        DataError: The output does not fit the format, or would not be read back.
    """
    if output_format is OutputFormat.text:
        if not isinstance(output, str):
            raise DataError(
                f"The output is {_json_type(output)}, but a text task needs a string.",
                fix="task.output_format=json",
            )
        return _encodable(output)
    if not isinstance(output, dict | list):
        raise DataError(
            f"The output is {_json_type(output)}, but a json task needs an object or an array.",
            fix="task.output_format=text",
        )
    value = _checked(output, 1)
    if key_order is not None:
        value = order_keys(value, key_order)
    return _encodable(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def _encodable(text: str) -> str:
    if _SURROGATE.search(text):
        raise DataError("The output has a lone surrogate, which no UTF-8 text can hold.")
    return text


def _checked(value: Json, depth: int) -> Json:
    """Copy a value, making sure that it is JSON which `parse_output` accepts."""
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise DataError(f"The output is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise DataError(f"The output has the key {key!r}; JSON keys are strings.")
        return {key: _checked(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_checked(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not _in_range(value):
            raise DataError("The output has NaN, an infinity, or a number beyond a double's range.")
        return _integral(value)
    raise DataError(f"The output has a value of type {type(value).__name__}, which is not JSON.")


def _in_range(number: int | float) -> bool:
    try:
        return isfinite(number)
    except OverflowError:
        return False


def _json_type(value: Json) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "an array" if isinstance(value, list) else "an object")


def parse_output(text: str) -> tuple[Json, ParseFailure | None]:
    """Read the first complete JSON object or array of a text; never raise.

    What comes before it (chatter, a code fence) and after it is passed over. Only whole outermost
    values are taken: where the first bracket is never closed, an inner object that happens to be
    complete is a fragment, not the answer. Duplicate keys, NaN, infinities, numbers beyond the
    range of a double, lone surrogates and nesting beyond `MAX_DEPTH` are refused.

    Returns:
        The value and None, or None and the failure.
    """
    opening = _BRACKET.search(text)
    if opening is None:
        return None, ParseFailure.no_json
    while opening is not None:
        start = opening.start()
        end, failure = _extent(text, start)
        if failure is not None:
            return None, failure
        try:
            # The decoder gets the slice alone: its error messages count lines from the start.
            return _decode(text[start:end]), None
        except _Refused as refused:
            return None, refused.failure
        except ValueError:
            opening = _BRACKET.search(text, end)
    return None, ParseFailure.syntax


def _decode(text: str) -> Json:
    value = _DECODER.decode(text)
    # Only an escape or the text itself can bring a surrogate; joined pairs have become characters.
    if ("\\u" in text or _SURROGATE.search(text)) and _SURROGATE.search(
        json.dumps(value, ensure_ascii=False)
    ):
        raise _Refused(ParseFailure.surrogate)
    return value


def _extent(text: str, start: int) -> tuple[int, ParseFailure | None]:
    """Find where the bracket at `start` is closed, without recursion and in one pass."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        token = match[0]
        if token in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return start, ParseFailure.too_deep
        elif token in "]}":
            depth -= 1
            if depth == 0:
                return match.end(), None
        elif token == '"':
            break
    return start, ParseFailure.incomplete


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused(ParseFailure.duplicate_key)
    return value


def _integer(digits: str) -> int:
    # float() takes any number of digits; int() would raise beyond Python's own limit.
    if len(digits) > 300 and not isfinite(float(digits)):
        raise _Refused(ParseFailure.number)
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise _Refused(ParseFailure.number)
    return value


def _constant(name: str) -> float:
    raise _Refused(ParseFailure.number)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def normalise(value: Json) -> Json:
    """Bring a value into the form in which it is compared.

    Integral floats become integers. Strings become NFC with each run of white space as one space
    and none at the ends. Keys stay as they are: they are names, not content.
    """
    if isinstance(value, str):
        text = value if value.isascii() else unicodedata.normalize("NFC", value)
        return " ".join(text.split())
    if isinstance(value, dict):
        return {key: normalise(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalise(item) for item in value]
    return _integral(value) if isinstance(value, float) else value


def canonical(value: Json) -> str:
    """Write a value so that equal outputs, and only those, give equal texts.

    The order of keys means nothing, the order of a list does; 50.0 is 50, but "50" and true are not
    50 and 1.
    """
    return encode_normalised(normalise(value))


encode_normalised = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":")
).encode
"""The canonical form of a value that is normalised already."""


def _integral(value: int | float) -> int | float:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def compile_schema(schema: dict[str, Any]) -> Validator:
    """Make the validator of a JSON Schema; references are looked up in the schema alone.

    Raises:
        DataError: It is not a JSON Schema, or refers to something outside itself.
    """
    draft = schema.get("$schema", "")
    if not isinstance(draft, str):
        raise _no_schema(f"$schema is {_json_type(draft)}, not a string")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _no_schema(f"at {error.json_path}: {error.message}") from None
    # An empty registry: jsonschema's own would fetch unknown references from the network.
    return kind(schema, registry=Registry())


def _no_schema(reason: str) -> DataError:
    return DataError(
        f"The schema is not a valid JSON Schema, {reason}.",
        where="task.schema",
        fix="mend the file, or task.schema=null to accept any JSON object",
    )


def schema_errors(value: Json, validator: Validator) -> list[str]:
    """Say in which ways a value breaks the schema, each with its path.

    Raises:
        DataError: The schema refers to something outside itself, or to itself without end.
    """
    try:
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    except Unresolvable as error:
        raise DataError(
            f"The schema refers to {error.ref}, which is not in it.",
            where="task.schema",
            fix="copy what it refers to into the schema's $defs",
        ) from None
    except RecursionError:
        raise DataError(
            "The schema refers to itself without end: a $ref leads back to where it stands.",
            where="task.schema",
            fix="let each $ref lead to a part of the schema that does not begin with it",
        ) from None
