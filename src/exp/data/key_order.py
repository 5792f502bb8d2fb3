"""The order of keys that a JSON Schema gives by its `properties`."""

from collections.abc import Iterator
from typing import Any

from exp.records import Json


def order_keys(value: Json, schema: dict[str, Any]) -> Json:
    """Copy a value with the keys of each object in the order of the schema's `properties`.

    Keys that the schema does not name follow, in the order given. Local references, allOf, anyOf,
    oneOf and if / then / else are looked into; a reference that leads nowhere orders nothing.
    """
    return _ordered(value, [schema], schema)


def _ordered(value: Json, schemas: list[Any], root: dict[str, Any]) -> Json:
    if isinstance(value, dict):
        known: dict[str, list[Any]] = {}
        others: list[Any] = []
        for schema in _branches(schemas, root):
            for key, subschema in schema.get("properties", {}).items():
                known.setdefault(key, []).append(subschema)
            others.append(schema.get("additionalProperties"))
        keys = [key for key in known if key in value] + [key for key in value if key not in known]
        return {key: _ordered(value[key], known.get(key, others), root) for key in keys}
    if isinstance(value, list):
        items = [schema.get("items") for schema in _branches(schemas, root)]
        return [_ordered(item, items, root) for item in value]
    return value


def _branches(schemas: list[Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas and all that they refer to or combine, each once, in order."""
    waiting = list(reversed(schemas))
    seen: set[int] = set()
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        inner = [local_target(schema.get("$ref"), root)]
        inner += [schema.get(keyword) for keyword in ("if", "then", "else")]
        inner += [
            part for keyword in ("allOf", "anyOf", "oneOf") for part in schema.get(keyword, ())
        ]
        waiting.extend(reversed(inner))


def local_target(reference: Any, root: dict[str, Any]) -> Any:
    """Follow a JSON pointer within `root`; None where it leads nowhere."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    target: Any = root
    for part in reference.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        target = target.get(name) if isinstance(target, dict) else None
    return target
