"""A seeded part of a split."""

from collections.abc import Sequence

import numpy as np

from exp.records import Example


def subset(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """Take `limit` examples, in their order; a smaller part is contained in a larger one."""
    if limit is None or limit >= len(examples):
        return list(examples)
    order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
    return [examples[int(row)] for row in sorted(order[:limit])]
