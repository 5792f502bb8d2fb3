"""Rows in two halves: what is learned from one is tried on the other before it is believed."""

from collections.abc import Iterable
from random import Random
from typing import TypeVar

Row = TypeVar("Row")


def halves(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Draw half of the rows, always the same ones, as files may have rows of a kind in turns."""
    drawn = list(rows)
    Random(0).shuffle(drawn)
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
