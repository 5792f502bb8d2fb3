"""Which rows of a split are used: those that fit, and a seeded subset of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import DataConfig, OnOverlong
from exp.data.tokens import TokenStore
from exp.errors import DataError

SHOWN_IDS = 10


@dataclass(frozen=True)
class Selection:
    """Row numbers of a TokenStore that are used, and the ids of those that were skipped.

    Attributes:
        rows: (examples,) row numbers, ascending.
        skipped_ids: Ids of over-long rows, where the configuration says that they are skipped.
    """

    rows: NDArray[np.int64]
    skipped_ids: tuple[str, ...]


def select_rows(
    store: TokenStore, config: DataConfig, model_max_tokens: int, seed: int
) -> Selection:
    """Apply the length limit and the row limit.

    A smaller `data.limit` selects a part of what a larger one selects.

    Raises:
        DataError: A row is longer than the limit, and the configuration does not say to skip it.
    """
    limit = config.max_length_tokens or model_max_tokens
    lengths = store.lengths
    too_long = np.flatnonzero(lengths > limit)
    ids = tuple(store.example_ids[int(row)] for row in too_long)
    if len(too_long) and config.on_overlong is OnOverlong.error:
        shown = ", ".join(ids[:SHOWN_IDS]) + (" ..." if len(ids) > SHOWN_IDS else "")
        raise DataError(
            f"{len(ids)} of {len(store)} training rows are longer than {limit} tokens; the longest "
            f"has {int(lengths.max())}.",
            where=f"ids {shown}",
            fix=f"data.max_length_tokens={int(lengths.max())}, or data.on_overlong=skip to leave "
            "them out",
        )
    rows = np.flatnonzero(lengths <= limit)
    if config.limit is not None and config.limit < len(rows):
        order = np.random.default_rng([seed, len(store)]).permutation(len(store))
        kept = np.isin(order, rows)
        rows = np.sort(order[kept][: config.limit])
    return Selection(rows, ids)
