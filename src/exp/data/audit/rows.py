"""Every row of a split with the token ids that a training would use, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from exp.data.audit.checks import UNWRITABLE_OUTPUT
from exp.data.audit.tally import Tally
from exp.data.render import Renderer
from exp.data.sources.examples import Examples
from exp.data.task import Task
from exp.data.tokens import TokenStore, tokenise
from exp.errors import DataError
from exp.records import Example, Rendered

CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """A row of a split. `rendered` is None where its output cannot be written."""

    split: str
    number: int
    example: Example
    rendered: Rendered | None


@dataclass(frozen=True, slots=True)
class AuditedSplit:
    """A split and its token ids; `unwritable` rows have none, so the store is shorter by them."""

    name: str
    examples: Examples
    store: TokenStore
    unwritable: frozenset[int]

    def chunks(self) -> Iterator[list[AuditedRow]]:
        rows = self._rows()
        while chunk := list(islice(rows, CHUNK_ROWS)):
            yield chunk

    def number_of(self, stored: int) -> int:
        """Return the row number of the row that is `stored`-th in the store."""
        for number in sorted(self.unwritable):
            stored += number <= stored
        return stored

    def _rows(self) -> Iterator[AuditedRow]:
        stored = 0
        for number in range(len(self.examples)):
            rendered = None
            if number not in self.unwritable:
                rendered = self.store[stored]
                stored += 1
            yield AuditedRow(self.name, number, self.examples[number], rendered)


def open_split(task: Task, name: str, renderer: Renderer, tally: Tally) -> AuditedSplit:
    """Tokenise a split as a training does; rows that this refuses become faults."""
    examples = task.split(name)
    try:
        store = tokenise(examples, examples.content_key, renderer)
        return AuditedSplit(name, examples, store, frozenset())
    except DataError:
        writable, unwritable = [], []
        for number, example in enumerate(examples):
            try:
                if example.output is not None:
                    renderer.writing.write(example.output)
                writable.append(example)
            except DataError as error:
                unwritable.append(number)
                row = AuditedRow(name, number, example, None)
                tally.add(UNWRITABLE_OUTPUT, row, error.what)
        store = _no_tokens(renderer)
        if writable:
            store = tokenise(writable, f"{examples.content_key}:writable", renderer)
        return AuditedSplit(name, examples, store, frozenset(unwritable))


def _no_tokens(renderer: Renderer) -> TokenStore:
    none = np.zeros(0, dtype=np.int64)
    return TokenStore(
        renderer.head_ids, none.astype(np.int32), np.zeros(1, dtype=np.int64), none, []
    )
