"""Token ids of a whole split, computed once and kept under a key of all that they depend on.

The ids lie in one flat memory-mapped array, so a split of a million rows costs no memory, worker
processes share it, and lengths are known before the first step.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from exp.cachedir import cache_dir
from exp.data.expiry import mark_used, remove_unused
from exp.data.render import Renderer
from exp.digest import code_digest
from exp.publish import publish_folder
from exp.records import Example, Rendered

log = logging.getLogger(__name__)

CODE = tuple(f"exp.data.{name}" for name in ("render", "tokens", "output", "key_order"))
"""What the ids depend on besides rows and tokenizer; another version of it tokenises anew."""
CHUNK_ROWS = 2000


@dataclass(frozen=True)
class TokenStore:
    """The rendered examples of a split, by row number.

    Attributes:
        head_ids: Token ids that every prompt begins with; not repeated in `ids`.
        ids: (tokens,) for each example what its prompt has of its own, then its completion.
        prompt_starts: (examples + 1,) where each example's own ids start in `ids`.
        completion_starts: (examples,) where its completion starts.
        example_ids: One id per example.
        tail_tokens: Tokens between an input and its completion, the same ones for all.
        max_tokens: The inputs of longer examples are cut at their end to fit; None cuts nothing.
    """

    head_ids: tuple[int, ...]
    ids: NDArray[np.int32]
    prompt_starts: NDArray[np.int64]
    completion_starts: NDArray[np.int64]
    example_ids: Sequence[str]
    tail_tokens: int = 0
    max_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.completion_starts)

    def __getitem__(self, row: int) -> Rendered:
        start, end = self.prompt_starts[row], self.prompt_starts[row + 1]
        middle = self.completion_starts[row]
        own = self.ids[start:middle].tolist()
        excess = len(self.head_ids) + int(end - start) - (self.max_tokens or 2**62)
        if excess > 0:
            tail = len(own) - self.tail_tokens
            own[tail - excess : tail] = []
        return Rendered((*self.head_ids, *own), tuple(self.ids[middle:end].tolist()))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(examples,) tokens of prompt and completion."""
        lengths: NDArray[np.int64] = np.diff(self.prompt_starts) + len(self.head_ids)
        return lengths if self.max_tokens is None else np.minimum(lengths, self.max_tokens)

    @property
    def input_lengths(self) -> NDArray[np.int64]:
        """(examples,) tokens of the input, before anything is cut."""
        lengths: NDArray[np.int64] = self.completion_starts - self.prompt_starts[:-1]
        return lengths - self.tail_tokens

    @property
    def completion_lengths(self) -> NDArray[np.int64]:
        """(examples,) tokens of the completion, its end token included."""
        return self.prompt_starts[1:] - self.completion_starts


def tokenise(examples: Sequence[Example], content_key: str, renderer: Renderer) -> TokenStore:
    """Open the token ids of a split, computing them if nobody has yet.

    Args:
        examples: The rows.
        content_key: Changes with the content of the rows.
        renderer: Its digest covers tokenizer, template, instruction and output format.
    """
    preimage = [code_digest(CODE), content_key, renderer.digest, len(examples)]
    key = hashlib.sha256(json.dumps(preimage).encode()).hexdigest()[:32]
    folder = cache_dir("tokens") / key
    if not folder.is_dir():
        remove_unused(folder.parent)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                log.info("tokenising %d rows", len(examples))
                with publish_folder(folder) as staging:
                    _write(examples, renderer, staging)
    mark_used(folder)
    return TokenStore(
        head_ids=renderer.head_ids,
        ids=np.memmap(folder / "ids.i32", dtype=np.int32, mode="r"),
        prompt_starts=np.load(folder / "prompt_starts.npy", mmap_mode="r"),
        completion_starts=np.load(folder / "completion_starts.npy", mmap_mode="r"),
        example_ids=ExampleIds(examples),
        tail_tokens=len(renderer.tail_ids),
    )


@dataclass(frozen=True)
class ExampleIds(Sequence[str]):
    """The ids of examples, read when asked for."""

    examples: Sequence[Example]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        return self.examples[row].id


def _write(examples: Sequence[Example], renderer: Renderer, folder: Path) -> None:
    prompt_starts, completion_starts = array("q", [0]), array("q")
    with (folder / "ids.i32").open("wb") as stream:
        for chunk in _chunks(examples):
            flat: list[int] = []
            base = prompt_starts[-1]
            for row in renderer.render(chunk):
                flat.extend(row.prompt_ids[len(renderer.head_ids) :])
                completion_starts.append(base + len(flat))
                flat.extend(row.completion_ids)
                prompt_starts.append(base + len(flat))
            stream.write(np.asarray(flat, dtype=np.int32).tobytes())
    np.save(folder / "prompt_starts.npy", np.frombuffer(prompt_starts, dtype=np.int64))
    np.save(folder / "completion_starts.npy", np.frombuffer(completion_starts, dtype=np.int64))


def _chunks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    rows = iter(examples)
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk
