"""Generation settings in which nothing is left open."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from exp.config.schema import GenerationConfig, Strategy
from exp.data.tokens import TokenStore
from exp.records import Derived

if TYPE_CHECKING:
    from exp.generation.constraint import Constraint
    from exp.generation.template import Template

CPU_SLOTS = 32
"""Rows side by side on a CPU: more gain little there, as its products are at their best by then."""

GPU_SLOTS = 256

LONGER_THAN_TRAINING = 1.5
SPARE_TOKENS = 16


def with_token_limit(
    config: GenerationConfig, train: TokenStore
) -> tuple[GenerationConfig, Derived]:
    """Set max_new_tokens by the longest training completion, where it is not set."""
    if config.max_new_tokens is not None:
        return config, Derived("generation.max_new_tokens", config.max_new_tokens, "as set")
    longest = int(np.max(train.completion_lengths))
    limit = round(LONGER_THAN_TRAINING * longest) + SPARE_TOKENS
    reason = (
        f"{LONGER_THAN_TRAINING} times the longest training completion of {longest} tokens, "
        f"plus {SPARE_TOKENS}"
    )
    return replace(config, max_new_tokens=limit), Derived(
        "generation.max_new_tokens", limit, reason
    )


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What decoding needs to know besides the model and the prompts.

    Attributes:
        config: With `max_new_tokens` set.
        stop_ids: Tokens that end a completion.
        num_slots: Rows side by side, if the memory admits as many.
        constraint: The schema that completions obey; None where they are free.
        template: What completions look like; None where there is no run that knows.
        fold: Computes for each token id the number of its text without white space around it;
            asked when something is decoded, for it goes through the whole vocabulary.
    """

    config: GenerationConfig
    stop_ids: tuple[int, ...]
    num_slots: int
    constraint: "Constraint | None" = None
    template: "Template | None" = None
    fold: Callable[[], tuple[int, ...]] | None = None

    @property
    def max_new_tokens(self) -> int:
        assert self.config.max_new_tokens is not None
        return self.config.max_new_tokens

    @property
    def drafting_digest(self) -> str | None:
        """Says what drafts are proposed from; None where there are none."""
        if not self.config.drafting or self.config.strategy is not Strategy.greedy:
            return None
        return "input alone" if self.template is None else self.template.digest


def fold_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Give tokens that differ by white space around them alone the same number.

    A value stands behind a quotation mark in JSON and behind a space in the input, so it begins
    with another token there.
    """
    numbers: dict[str, int] = {}
    pieces = (tokenizer.id_to_token(token) for token in range(tokenizer.get_vocab_size()))
    # Byte-level vocabularies write a space as U+0120, SentencePiece as U+2581.
    return tuple(
        numbers.setdefault((piece or "").strip("\u0120\u2581"), token)
        for token, piece in enumerate(pieces)
    )
