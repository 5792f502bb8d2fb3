"""Which rows of a split are used: those that fit or can be made to, and a seeded part of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import DataConfig, OnOverlong
from exp.data.tokens import TokenStore
from exp.errors import DataError

SHOWN_IDS = 10


@dataclass(frozen=True)
class Selection:
    """Row numbers of a TokenStore that are used, and the ids of those that are too long.

    Attributes:
        rows: (examples,) row numbers, ascending.
        skipped_ids: Ids of over-long rows, where the configuration says that they are skipped.
        cut_ids: Ids of used rows whose input loses its end, where the configuration says so.
        max_tokens: What those are cut to; None where nothing is cut.
    """

    rows: NDArray[np.int64]
    skipped_ids: tuple[str, ...] = ()
    cut_ids: tuple[str, ...] = ()
    max_tokens: int | None = None


def select_rows(
    store: TokenStore, config: DataConfig, model_max_tokens: int, seed: int
) -> Selection:
    """Apply the length limit, then data.fraction and data.limit, whichever leaves fewer rows.

    Both take the front of one seeded order, so a smaller part is contained in a larger one.

    Raises:
        DataError: A row is longer than the limit, and the configuration does not say what to do
            with it, or it cannot be done.
    """
    limit = config.max_length_tokens or model_max_tokens
    lengths = store.lengths
    fits = lengths <= limit
    cuts = config.on_overlong is OnOverlong.truncate_prompt and not fits.all()
    if cuts:
        # Template, instruction, completion and one token of the input have to stay.
        _refuse(store, lengths - store.input_lengths + 1 <= limit, limit, cuts=True)
        fits = np.ones_like(fits)
    elif config.on_overlong is OnOverlong.error:
        _refuse(store, fits, limit, cuts=False)
    skipped = _ids(store, np.flatnonzero(~fits))
    wanted = num_fitting = int(fits.sum())
    if len(store) and not num_fitting:
        raise DataError(
            f"Each of the {len(store)} training rows is longer than {limit} tokens; the shortest "
            f"has {int(lengths.min())}.",
            where="data.on_overlong=skip",
            fix=f"data.max_length_tokens={int(lengths.max())}, if the model was made for as many",
        )
    if config.fraction < 1:
        wanted = max(1, round(config.fraction * num_fitting))
    if config.limit is not None:
        wanted = min(wanted, config.limit)
    rows = np.flatnonzero(fits)
    if wanted < num_fitting:
        order = np.random.default_rng([seed, len(store)]).permutation(len(store))
        rows = np.sort(order[fits[order]][:wanted])
    if not cuts:
        return Selection(rows, skipped)
    return Selection(rows, skipped, _ids(store, rows[lengths[rows] > limit]), limit)


def overlong_lines(selection: Selection) -> Iterator[str]:
    """Say of each row that is too long what becomes of it, and how many there are."""
    for ids, done, what in (
        (selection.skipped_ids, "skipped", "is longer than the limit"),
        (selection.cut_ids, "cut", f"has its input cut, to {selection.max_tokens} tokens in all"),
    ):
        yield from (f"{done}: {example_id} {what}" for example_id in ids)
        if ids:
            yield f"{done}: {len(ids)} training rows, because of data.on_overlong"


def _refuse(store: TokenStore, fits: NDArray[np.bool_], limit: int, *, cuts: bool) -> None:
    bad = np.flatnonzero(~fits)
    if not len(bad):
        return
    longest = int(store.lengths[bad].max())
    ids = _ids(store, bad[: SHOWN_IDS + 1])
    what = f"{len(bad)} of {len(store)} training rows are longer than {limit} tokens"
    if cuts:
        what += " even without their input"
        fix = f"data.max_length_tokens={longest}, or data.on_overlong=skip to leave them out"
    else:
        fix = (
            f"data.max_length_tokens={longest}, or data.on_overlong=skip to leave them out, or "
            "data.on_overlong=truncate_prompt to cut their inputs"
        )
    raise DataError(
        f"{what}; the longest has {longest}.",
        where="ids " + ", ".join(ids[:SHOWN_IDS]) + (" ..." if len(ids) > SHOWN_IDS else ""),
        fix=fix,
    )


def _ids(store: TokenStore, rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(store.example_ids[int(row)] for row in rows)
