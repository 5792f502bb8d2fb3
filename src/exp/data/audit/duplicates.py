"""Ids and inputs that occur more than once, within a split and across splits.

Rows are known by 64-bit hashes, so memory stays flat: among a million rows two different texts
share a hash once in some forty million data sets.
"""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from exp.data.audit.checks import CONFLICT, DUPLICATE, LEAK, REPEATED_ID, SHARED_ID, Check
from exp.data.audit.rows import AuditedRow
from exp.data.audit.tally import Tally
from exp.data.output import canonical
from exp.data.sources.examples import Examples
from exp.data.splits import fold_input
from exp.records import Example

SHOWN_CHARS = 120


class DuplicateChecks:
    """Remembers a hash of every id, input and output, and compares them at the end."""

    def __init__(self, splits: Mapping[str, Examples], tally: Tally) -> None:
        self._splits, self._tally = splits, tally
        self._names = tuple(splits)
        self._numbers, self._split_indices = array("q"), array("b")
        self._ids, self._inputs, self._outputs = array("q"), array("q"), array("q")

    def look_at(self, rows: Sequence[AuditedRow]) -> None:
        """Remember some rows of a split."""
        for row in rows:
            self._split_indices.append(self._names.index(row.split))
            self._numbers.append(row.number)
            self._ids.append(_hash(row.example.id))
            self._inputs.append(_hash(fold_input(row.example.input)))
            self._outputs.append(_hash(canonical(row.example.output)))

    def finish(self) -> list[tuple[str, int]]:
        """Tally what was found.

        Returns:
            One row of each different input, as split and row number, in order.
        """
        for group in _groups(self._ids):
            self._compare_ids(group)
        for group in _groups(self._inputs):
            self._compare_inputs(group)
        _, first = np.unique(np.asarray(self._inputs), return_index=True)
        return [(self._split(one), self._numbers[one]) for one in np.sort(first).tolist()]

    def _compare_ids(self, group: list[int]) -> None:
        if not self._example(group[0]).id.strip():
            return  # empty ids have a check of their own
        first_of: dict[str, int] = {}
        for one in group:
            split = self._split(one)
            if split in first_of:
                self._add(REPEATED_ID, one, f"as {self._place(first_of[split])}")
            elif first_of:
                self._add(SHARED_ID, one, f"as {self._place(next(iter(first_of.values())))}")
            first_of.setdefault(split, one)

    def _compare_inputs(self, group: list[int]) -> None:
        first_of: dict[str, int] = {}
        copied: dict[tuple[str, int], int] = {}
        for one in group:
            split, output = self._split(one), self._outputs[one]
            # Splits come one after the other, so all others that were seen are earlier.
            elsewhere = next((other for name, other in first_of.items() if name != split), None)
            if elsewhere is not None:
                self._add(LEAK, one, f"as {self._place(elsewhere)}")
            if (split, output) in copied:
                self._add(DUPLICATE, one, f"as {self._place(copied[split, output])}")
            if output != self._outputs[group[0]]:
                other = canonical(self._example(group[0]).output)[:SHOWN_CHARS]
                self._add(CONFLICT, one, f"{self._place(group[0])} has {other}")
            first_of.setdefault(split, one)
            copied.setdefault((split, output), one)

    def _add(self, check: Check, one: int, detail: str) -> None:
        number, split = self._numbers[one], self._split(one)
        self._tally.add_at(check, split, number, self._example(one).id, detail)

    def _split(self, one: int) -> str:
        return self._names[self._split_indices[one]]

    def _example(self, one: int) -> Example:
        return self._splits[self._split(one)][self._numbers[one]]

    def _place(self, one: int) -> str:
        return self._splits[self._split(one)].place(self._numbers[one])


def _groups(hashes: "array[int]") -> list[list[int]]:
    """Return the positions of equal hashes, where there are several, each group in order."""
    values = np.asarray(hashes)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    again = ordered[1:] == ordered[:-1]
    shared = np.concatenate([again, [False]]) | np.concatenate([[False], again])
    order = order[shared]
    groups = groupby(order.tolist(), key=lambda one: int(values[one]))
    return sorted(list(group) for _, group in groups)


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
