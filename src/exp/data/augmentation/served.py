"""Variants as token ids, made when a step asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from exp.data.augmentation.chain import Augmenter, Variant
from exp.data.render import Renderer
from exp.data.tokens import TokenStore
from exp.records import Example, Rendered

ROOM = 16
"""Tokens by which a variant of a short row may be longer than it."""


@dataclass(frozen=True, slots=True)
class Served:
    """One example of a step, as token ids.

    Attributes:
        id: The row's id; of a variant with its number behind.
        is_variant: Whether it is more than the row itself.
        num_rejected: Draws that lost something of the answer, before this one.
        exhausted: The row itself stands in, as its text admits no further variant.
        overlong: The row itself stands in, as the variant had too many tokens.
    """

    id: str
    rendered: Rendered
    is_variant: bool = False
    num_rejected: int = 0
    exhausted: bool = False
    overlong: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.rendered.prompt_ids) + len(self.rendered.completion_ids)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the variants of some steps."""

    num_variants: int = 0
    num_rejected: int = 0
    num_exhausted: int = 0
    num_overlong: int = 0

    @classmethod
    def of(cls, served: Sequence[Served]) -> "Tally":
        """Count examples."""
        return cls(
            num_variants=sum(example.is_variant for example in served),
            num_rejected=sum(example.num_rejected for example in served),
            num_exhausted=sum(example.exhausted for example in served),
            num_overlong=sum(example.overlong for example in served),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def words(self) -> str:
        """The counts as a sentence."""
        return (
            f"{self.num_variants} new variants; {self.num_rejected} draws lost something of the "
            f"answer and were drawn anew; the row itself stood in {self.num_exhausted} times, as "
            f"its text admits no further variant, and {self.num_overlong} times, as the variant "
            "had too many tokens"
        )


def longest_variant(longest_row: int, limit: int) -> int:
    """Return how many tokens a variant may have, so that what was planned by the rows holds.

    Args:
        longest_row: Tokens of the longest row.
        limit: Tokens that any example may have.
    """
    return min(limit, longest_row + max(ROOM, longest_row // 4))


@dataclass(frozen=True)
class Variants:
    """The examples of an epoch: `factor` of each row, the row itself and variants of it.

    Example number m is variant m % factor of row m // factor; variant 0 is the row.

    Attributes:
        store: The rows as token ids.
        rows: (rows,) which rows of the store are used.
        examples: The rows of the store as text.
        max_tokens: Prompt and completion of a variant have no more tokens than this.
    """

    store: TokenStore
    rows: NDArray[np.int64]
    examples: Sequence[Example]
    renderer: Renderer
    augmenter: Augmenter
    factor: int
    max_tokens: int

    def serve(self, epoch: int, members: Sequence[int]) -> dict[int, Served]:
        """Give examples by their number; a pure function of the epoch and the numbers."""
        wanted: dict[int, list[int]] = {}
        for member in dict.fromkeys(members):
            wanted.setdefault(member // self.factor, []).append(member % self.factor)
        served: dict[int, Served] = {}
        drawn: list[tuple[int, int, Variant]] = []
        for place, numbers in wanted.items():
            row = int(self.rows[place])
            made = []
            if count := max(numbers):
                made = self.augmenter.variants(self.examples[row], epoch, count)
            for number in numbers:
                member = place * self.factor + number
                variant = made[number - 1] if number else Variant(None)
                if variant.text is None:
                    served[member] = self._row(
                        row, number, variant.num_rejected, exhausted=number > 0
                    )
                else:
                    drawn.append((member, row, variant))
        worded = [Example("", variant.text or "", variant.output) for _, _, variant in drawn]
        rendered = self.renderer.render(worded)
        for (member, row, variant), one in zip(drawn, rendered, strict=True):
            number = member % self.factor
            completion = one.completion_ids or self.store[row].completion_ids
            if len(one.prompt_ids) + len(completion) > self.max_tokens:
                served[member] = self._row(row, number, variant.num_rejected, overlong=True)
            else:
                served[member] = Served(
                    self._id(row, number),
                    Rendered(one.prompt_ids, completion),
                    True,
                    variant.num_rejected,
                )
        return served

    def _row(
        self,
        row: int,
        number: int,
        num_rejected: int,
        *,
        exhausted: bool = False,
        overlong: bool = False,
    ) -> Served:
        return Served(
            self._id(row, number),
            self.store[row],
            num_rejected=num_rejected,
            exhausted=exhausted,
            overlong=overlong,
        )

    def _id(self, row: int, number: int) -> str:
        name = self.store.example_ids[row]
        return f"{name}#{number}" if number else name
