"""JSON as the standard has it: what Python's parser lets through is refused here."""

import json
import math
import re
from typing import Any

from exp.records import Json

LARGEST_NESTING = 200
"""Levels that a value may have; far below where Python's own recursion ends, so that the check does
not depend on how deep the caller is."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"[ \t\r\n]*")
_BRACKETS = re.compile(r"[\[\]{}]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class BadJson(Exception):
    """A text is not JSON. `position` counts characters from 0; None where it is not known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadJson(f"the key {json.dumps(key)} is there twice in one object")
            seen.add(key)
    return result


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise BadJson(f"the number {literal[:40]} is too large")
    return value


def _refuse_constant(literal: str) -> None:
    raise BadJson(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_float=_finite,
    parse_constant=_refuse_constant,
)


def parse_json(text: str) -> Json:
    """Parse one whole JSON text.

    Raises:
        BadJson: Not JSON, a duplicate key, NaN or Infinity, a number out of range, nesting beyond
            `LARGEST_NESTING`, or an escape that is half a surrogate pair.
    """
    value, end = parse_json_at(text, skip_blanks(text, 0))
    end = skip_blanks(text, end)
    if end != len(text):
        raise BadJson("more text after the end of the value", end)
    return value


def parse_json_at(text: str, start: int) -> tuple[Json, int]:
    """Parse the JSON value that begins at `start`; also return where it ends.

    Raises:
        BadJson: As in `parse_json`.
    """
    value: Json
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BadJson(error.msg[:1].lower() + error.msg[1:], error.pos) from None
    except RecursionError:
        raise BadJson(f"nested deeper than {LARGEST_NESTING} levels") from None
    except ValueError:
        # Python refuses integers of more than 4,300 digits; parsing them takes quadratic time.
        raise BadJson("a number has thousands of digits") from None
    _check_text(text[start:end], value)
    return value, end


def skip_blanks(text: str, start: int) -> int:
    """Return the place of the first character, from `start` on, that is not JSON white space."""
    match = _BLANKS.match(text, start)
    return match.end() if match else start


def _check_text(text: str, value: Json) -> None:
    """Refuse nesting that is too deep, and strings that cannot be written as UTF-8.

    Raises:
        BadJson: One of both.
    """
    if text.count("[") + text.count("{") > LARGEST_NESTING and _depth(text) > LARGEST_NESTING:
        raise BadJson(f"nested deeper than {LARGEST_NESTING} levels")
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            lone = ord(error.object[error.start])
            raise BadJson(f"the escape \\u{lone:04x} is half a surrogate pair") from None


def _depth(text: str) -> int:
    """Count the levels of a text that is known to be JSON."""
    deepest = level = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    return deepest
