"""Inputs that are nearly the same: candidates by MinHash, then compared for real.

Two inputs are as similar as the sets of their five-character pieces, by Jaccard. MinHash with
locality-sensitive hashing names candidates in time that grows with the rows, not with their pairs;
of the pairs that are just similar enough it misses at most one in a hundred.

Source:
    Broder 1997, On the resemblance and containment of documents.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rensa import RMinHash, RMinHashLSH

from exp.data.audit.checks import NEAR_DUPLICATE, NEAR_LEAK
from exp.data.audit.tally import Tally
from exp.data.sources.examples import Examples
from exp.data.splits import fold_input

PIECE_CHARS = 5
NUM_HASHES = 140
BAND_SIZES = (20, 14, 10, 7, 5, 4, 2, 1)
"""Divisors of NUM_HASHES. Larger bands name fewer candidates, and find fewer pairs."""
RECALL = 0.99

CHUNK_ROWS = 100
MOST_CANDIDATES = 50
"""Candidates of a row that are compared for real."""
CROWD = 8
"""A row with as many near copies before it is not searched for by later rows: they will find those.
It keeps the time bounded where all rows are alike."""
KEPT_PIECES = 500
"""Rows whose pieces stay in memory, some 100 bytes per character of an input."""
SEED = 1

log = logging.getLogger(__name__)


def check_near(
    splits: Mapping[str, Examples], rows: Sequence[tuple[str, int]], similarity: float, tally: Tally
) -> None:
    """Tally the rows that are near an earlier one, of their own split and of an earlier split.

    Args:
        splits: All splits.
        rows: One row of each different input, as split and row number, in the order of the splits.
        similarity: From which on two inputs count as near duplicates, 0 to 1.
        tally: Takes the faults.
    """
    log.info("comparing %d inputs with each other", len(rows))

    @lru_cache(maxsize=KEPT_PIECES)
    def pieces_of(position: int) -> frozenset[str]:
        split, number = rows[position]
        return frozenset(pieces(splits[split][number].input))

    index = RMinHashLSH(similarity, NUM_HASHES, num_bands(similarity))
    for start in range(0, len(rows), CHUNK_ROWS):
        positions = range(start, min(start + CHUNK_ROWS, len(rows)))
        sketches = RMinHash.from_token_sets([pieces_of(p) for p in positions], NUM_HASHES, SEED)
        for position, sketch in zip(positions, sketches, strict=True):
            near: dict[int, float] = {}
            for candidate in sorted(index.query(sketch))[:MOST_CANDIDATES]:
                found = jaccard(pieces_of(position), pieces_of(candidate))
                if found >= similarity:
                    near[candidate] = found
            if len(near) < CROWD:
                index.insert(position, sketch)
            if near:
                _add(splits, rows, position, near, tally)


def num_bands(similarity: float) -> int:
    """Return the fewest bands by which a pair of this similarity is found often enough.

    All hashes of one of b bands of r have to agree: the probability is 1 - (1 - s**r)**b.
    """
    for size in BAND_SIZES:
        bands = NUM_HASHES // size
        if 1 - (1 - similarity**size) ** bands >= RECALL:
            return bands
    return NUM_HASHES


def pieces(text: str) -> set[str]:
    """Return all runs of five characters; case, Unicode form and runs of white space are alike."""
    folded = fold_input(text).casefold()
    last = max(1, len(folded) - PIECE_CHARS + 1)
    return {folded[start : start + PIECE_CHARS] for start in range(last)}


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the size of what two sets share over the size of what either has."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _add(
    splits: Mapping[str, Examples],
    rows: Sequence[tuple[str, int]],
    position: int,
    near: dict[int, float],
    tally: Tally,
) -> None:
    split, number = rows[position]
    closest: dict[bool, int] = {}
    for candidate, found in near.items():
        own = rows[candidate][0] == split
        if own not in closest or found > near[closest[own]]:
            closest[own] = candidate
    for own, candidate in closest.items():
        other_split, other_number = rows[candidate]
        place = splits[other_split].place(other_number)
        detail = f"{near[candidate]:.0%} as {place}"
        check = NEAR_DUPLICATE if own else NEAR_LEAK
        tally.add_at(check, split, number, splits[split][number].id, detail)
