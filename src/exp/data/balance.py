"""The value by which examples are balanced, read from their outputs or their other columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exp.data.output import canonical
from exp.errors import ConfigError
from exp.records import Example

PRESENCE = "?"
"""Behind a path: what counts is whether something is there, not what."""

WHOLE_OUTPUT = "output"

_ABSENT = object()
_MOST_NAMED = 12


@dataclass(frozen=True)
class Values:
    """The value of each example by number, and what the numbers stand for.

    Attributes:
        numbers: (examples,) from 0.
        names: One JSON text per number, or "absent", "present", "empty".
        counts: (values,) examples that have it.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    counts: NDArray[np.int64]


def read_values(examples: Sequence[Example], rows: NDArray[np.int64], path: str) -> Values:
    """Look a field up in every example that is used.

    Args:
        examples: The training split.
        rows: (examples,) which of them are used.
        path: Keys of the output with dots between them; else the name of another column, dots for
            nested ones; or `output`, the whole of it. A trailing `?` asks for presence alone.
            Objects and lists count by presence always.

    Raises:
        ConfigError: No example has such a field, or balancing by it would change nothing.
    """
    keys = path.removesuffix(PRESENCE)
    numbers = np.empty(len(rows), dtype=np.int64)
    known: dict[str, int] = {}
    found = False
    for index, row in enumerate(rows.tolist()):
        value = _look_up(examples[row], keys)
        found = found or value is not _ABSENT
        name = _name(value, only_presence=path.endswith(PRESENCE))
        numbers[index] = known.setdefault(name, len(known))
    if not found:
        raise ConfigError(
            f"No training row has the field {keys}.",
            where=f"data.balance={path}",
            fix=f"data.balance=<one of {', '.join(_paths(examples[int(rows[0])]))}>",
        )
    problem = None
    if len(known) == 1:
        problem = f"every training row has the same value there: {next(iter(known))}"
    elif len(known) == len(rows) > 2:
        problem = "every training row has another value there"
    if problem:
        raise ConfigError(
            f"There is nothing to balance by {path}: {problem}.",
            where=f"data.balance={path}",
            fix=f"data.balance={keys}{PRESENCE} to balance rows with and without it, or "
            "data.balance=null",
        )
    return Values(numbers, tuple(known), np.bincount(numbers))


def _look_up(example: Example, path: str) -> Any:
    for root in (example.output, example.meta):
        value = _walk(root, path)
        if value is not _ABSENT:
            return value
    return example.output if path == WHOLE_OUTPUT else _ABSENT


def _walk(value: Any, path: str) -> Any:
    if isinstance(value, dict) and path in value:
        return value[path]
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _name(value: Any, only_presence: bool) -> str:
    if value is _ABSENT or value is None:
        return "absent"
    if isinstance(value, dict | list):
        return "present" if value else "empty"
    return "present" if only_presence else canonical(value)


def _paths(example: Example) -> list[str]:
    """Name fields that the fix can offer."""
    names = [WHOLE_OUTPUT] if isinstance(example.output, str) else []
    for root in (example.output, example.meta):
        if isinstance(root, dict):
            names.extend(_below(root, ""))
    return names[:_MOST_NAMED]


def _below(value: dict[str, Any], prefix: str) -> list[str]:
    names = []
    for key, inner in value.items():
        names.append(prefix + key)
        if isinstance(inner, dict):
            names.extend(_below(inner, f"{prefix}{key}."))
    return names
