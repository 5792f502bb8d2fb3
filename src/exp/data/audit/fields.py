"""The fields of outputs: how often they are there, with which values, said by the input or not."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from exp.config.schema import OutputFormat
from exp.data.audit.checks import UNGROUNDED, UNSEEN_FIELD
from exp.data.audit.report import FieldFacts
from exp.data.audit.rows import AuditedRow
from exp.data.audit.tally import Tally
from exp.data.task import Task
from exp.records import Json

MOST_VALUES = 1000
"""Distinct values of a field that are counted; a field with more is free text."""
MOST_FIELDS = 500
"""Fields that are counted one by one: keys that are made up row by row would fill the memory."""
OTHERS = "(other fields)"
SHOWN_VALUES = 8
SHOWN_CHARS = 120

_GAPS = re.compile(r"[\W_]+")


@dataclass
class _Field:
    num_rows: int = 0
    num_strings: int = 0
    num_grounded: int = 0
    values: Counter[str] = field(default_factory=Counter)
    unseen: bool = False
    """No training row has it."""


class FieldChecks:
    """Counts fields and values per split, and looks for each string in its row's input."""

    def __init__(self, task: Task, min_grounded: float, tally: Tally) -> None:
        self._tally, self._min_grounded = tally, min_grounded
        self._is_json = task.output_format is OutputFormat.json
        self._labels = frozenset(_listed_values(task.schema))
        self._fields: dict[str, dict[str, _Field]] = {split: {} for split in task.splits}

    def look_at(self, rows: Sequence[AuditedRow]) -> None:
        """Count the fields of some rows of a split."""
        if not self._is_json:
            return
        for row in rows:
            if row.rendered is not None and row.example.output is not None:
                self._look_at(row)

    def finish(self, split: str) -> tuple[FieldFacts, ...]:
        """Tally what concerns the split as a whole, and return its fields."""
        fields = self._fields[split]
        strings = sum(one.num_strings for one in fields.values())
        grounded = sum(one.num_grounded for one in fields.values())
        share = grounded / strings if strings else 1.0
        if share >= self._min_grounded:
            self._tally.drop(UNGROUNDED, split)
        else:
            self._tally.describe(UNGROUNDED, split, strings=strings, share=share)
        # Fields stand in the same order in all splits, so that they can be compared.
        order = {path: rank for rank, path in enumerate(self._fields.get("train", fields))}
        return tuple(
            FieldFacts(
                path=path,
                num_rows=one.num_rows,
                num_strings=one.num_strings,
                num_grounded=one.num_grounded,
                num_distinct=len(one.values),
                values=tuple(one.values.most_common(SHOWN_VALUES)),
            )
            for path, one in sorted(fields.items(), key=lambda item: order.get(item[0], len(order)))
        )

    def _look_at(self, row: AuditedRow) -> None:
        folded = f" {fold(row.example.input)}"
        fields = self._fields[row.split]
        strings = grounded = 0
        seen: set[str] = set()
        for path, leaf in leaves(row.example.output):
            name = path if path in fields or len(fields) < MOST_FIELDS else OTHERS
            one = fields.get(name) or self._open(fields, name, row.split)
            if name not in seen:
                seen.add(name)
                one.num_rows += 1
            if isinstance(leaf, str | bool):
                text = leaf[:SHOWN_CHARS] if isinstance(leaf, str) else str(leaf).lower()
                if text in one.values or len(one.values) < MOST_VALUES:
                    one.values[text] += 1
            if isinstance(leaf, str) and leaf not in self._labels:
                found = _occurs(fold(leaf), folded)
                strings, grounded = strings + 1, grounded + found
                one.num_strings += 1
                one.num_grounded += found
        if grounded < self._min_grounded * strings:
            detail = f"{grounded} of its {strings} strings are in the input"
            self._tally.add(UNGROUNDED, row, detail)
        if unseen := [name for name in seen if fields[name].unseen]:
            self._tally.add(UNSEEN_FIELD, row, ", ".join(sorted(unseen)))

    def _open(self, fields: dict[str, _Field], name: str, split: str) -> _Field:
        train = self._fields.get("train", {})
        known = not train or split == "train" or OTHERS in train or name in train
        fields[name] = _Field(unseen=not known)
        return fields[name]


def _occurs(folded: str, text: str) -> bool:
    """Tell whether a string begins a word of a text, or is in it where words have no gaps."""
    return f" {folded}" in text or (not folded.isascii() and folded in text)


def fold(text: str) -> str:
    """Bring a text into the form in which it is looked for: no case, accents or punctuation."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _GAPS.sub(" ", text.casefold()).strip()


def leaves(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield each leaf with its path, like `lines[].product`; empty objects and lists are leaves."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for item in value:
            yield from leaves(item, f"{path}[]")
    else:
        yield path, value


def _listed_values(schema: Any) -> Iterator[str]:
    """Yield the strings that a schema lists: they are labels, which no input has to say."""
    if isinstance(schema, dict):
        listed = schema.get("enum")
        for value in [*(listed if isinstance(listed, list) else []), schema.get("const")]:
            if isinstance(value, str):
                yield value
        for item in schema.values():
            yield from _listed_values(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from _listed_values(item)
