"""What completions of a task look like: which token tends to follow the last few.

Learned from the training completions, kept in the run folder, used to propose drafts. It can only
cost or save time: what it proposes is verified.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from exp.data.tokens import TokenStore
from exp.errors import CheckpointError
from exp.publish import write_atomically

START = -1
"""Stands before the first token of a completion."""

LONGEST_CONTEXT = 5
MOST_COMPLETIONS = 4000
"""Completions that are counted, spread over the split; keys and punctuation show in fewer."""

SMALLEST_COUNT = 3
"""Contexts seen less often say nothing yet."""

MOST_CONTINUATIONS = 24

Continuations = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Template:
    """Continuations by context.

    Attributes:
        table: Last tokens (START among them) -> the tokens that followed and their shares, the
            most frequent first.
    """

    table: dict[tuple[int, ...], Continuations]

    def continuations(self, tokens: Sequence[int]) -> Continuations:
        """What follows the longest known suffix of a completion that begins with START."""
        last = tuple(tokens[-LONGEST_CONTEXT:])
        for start in range(len(last)):
            found = self.table.get(last[start:])
            if found is not None:
                return found
        return ()

    @cached_property
    def digest(self) -> str:
        """Changes with anything that can change a draft."""
        return hashlib.sha256(_to_bytes(self)).hexdigest()


def learn_template(store: TokenStore) -> Template:
    """Count what follows what in the completions of the training split."""
    rows = np.linspace(0, len(store) - 1, min(len(store), MOST_COMPLETIONS)).round().astype(int)
    return count_continuations(store[int(row)].completion_ids for row in rows)


def count_continuations(completions: Iterable[Sequence[int]]) -> Template:
    """Make a template of completions; the end token is a continuation like any other."""
    counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for completion in completions:
        tokens = (START, *completion)
        for position in range(1, len(tokens)):
            for start in range(max(0, position - LONGEST_CONTEXT), position):
                counts[tokens[start:position]][tokens[position]] += 1
    table = {}
    for context in sorted(counts):
        seen = counts[context]
        total = seen.total()
        if total >= SMALLEST_COUNT:
            ranked = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
            table[context] = tuple(
                (token, count / total) for token, count in ranked[:MOST_CONTINUATIONS]
            )
    return Template(table)


def write_template(path: Path, template: Template) -> None:
    """Write a template as safetensors."""
    write_atomically(path, _to_bytes(template))


def read_template(path: Path) -> Template:
    """Read what `write_template` wrote.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        arrays = {name: array.tolist() for name, array in load(path.read_bytes()).items()}
        contexts, lengths = iter(arrays["contexts"]), arrays["lengths"]
        pairs = iter(zip(arrays["tokens"], arrays["shares"], strict=True))
        table = {
            tuple(next(contexts) for _ in range(length)): tuple(next(pairs) for _ in range(count))
            for length, count in zip(lengths, arrays["counts"], strict=True)
        }
    except Exception as error:
        raise CheckpointError(
            f"The template of the completions cannot be read: {type(error).__name__}.",
            where=str(path),
            fix=f"rm {path}, and predictions take longer; or train again",
        ) from error
    return Template(table)


def _to_bytes(template: Template) -> bytes:
    contexts, found = template.table.keys(), template.table.values()
    arrays: dict[str, np.ndarray] = {
        "contexts": np.array([token for context in contexts for token in context], np.int32),
        "lengths": np.array([len(context) for context in contexts], np.int32),
        "counts": np.array([len(pairs) for pairs in found], np.int32),
        "tokens": np.array([token for pairs in found for token, _ in pairs], np.int32),
        "shares": np.array([share for pairs in found for _, share in pairs], np.float64),
    }
    data: bytes = save(arrays)
    return data
