"""Typed rows that cross a stage or land on disk."""

from dataclasses import dataclass, field
from typing import Any

Json = None | bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of the task. The id is stable and unique; the order of examples means nothing.

    `output` is None where the answer is not known (prediction on new rows). `meta` carries the
    other columns of the source row through to the output of `exp predict`.
    """

    id: str
    input: str
    output: Json = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of one example: all tokens before the completion, and the tokens that carry loss.

    The completion ends with the end-of-turn token. It is empty where the output is not known.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model wrote for one example.

    `finish_reason` is "stop" (a stop token came) or "length" (cut at the token limit).
    `text` is the completion without its stop token, decoded, untouched otherwise.
    """

    id: str
    text: str
    finish_reason: str
    num_tokens: int
    token_ids: tuple[int, ...] = ()
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """A named number over `count` rows, with its 95% bootstrap interval where one was computed."""

    name: str
    value: float
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """A value computed from others, and why it came out so; printed and kept in the run."""

    name: str
    value: Json
    reason: str
