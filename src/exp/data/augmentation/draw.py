"""Random choices that depend on nothing but a name."""

import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def random_of(*name: str | int) -> Random:
    """Random numbers for a name; the same in every process, on every machine."""
    preimage = "\x1f".join(map(str, name))
    return Random(
        int.from_bytes(hashlib.sha256(preimage.encode("utf-8", "replace")).digest()[:8], "big")
    )


def draw_places(places: Sequence[T], rng: Random, strength: float) -> list[T]:
    """Draw a share of places without repetition, in their order; at least one if there is any."""
    count = min(len(places), max(1, round(strength * len(places))))
    return [places[i] for i in sorted(rng.sample(range(len(places)), count))]


def draw_weighted(weights: Mapping[str, float], count: int, rng: Random) -> list[str]:
    """Draw names without repetition, likelier with more weight; those of weight 0 never.

    Source:
        Efraimidis and Spirakis 2006, Weighted random sampling with a reservoir.
    """
    keys = {name: rng.random() ** (1 / weight) for name, weight in weights.items() if weight > 0}
    return sorted(keys, key=lambda name: keys[name], reverse=True)[:count]
