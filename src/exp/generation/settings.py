"""Generation settings in which nothing is left open."""

from dataclasses import dataclass, replace

import numpy as np

from exp.config.schema import GenerationConfig
from exp.data.tokens import TokenStore
from exp.records import Derived

CPU_SLOTS = 32
"""Rows side by side on a CPU: more gain little there, as its products are at their best by then."""

GPU_SLOTS = 256

LONGER_THAN_TRAINING = 1.5
SPARE_TOKENS = 16


def with_token_limit(config: GenerationConfig, train: TokenStore) -> tuple[GenerationConfig, Derived]:
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
        num_slots: Rows side by side.
    """

    config: GenerationConfig
    stop_ids: tuple[int, ...]
    num_slots: int

    @property
    def max_new_tokens(self) -> int:
        assert self.config.max_new_tokens is not None
        return self.config.max_new_tokens
