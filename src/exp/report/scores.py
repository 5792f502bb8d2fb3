"""Scores of before and after, side by side, as scores.json holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95% interval, where it has one, over `count` rows."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score of the base model and of the adapted one; None where it was not computed."""

    name: str
    before: Estimate | None
    after: Estimate | None

    @property
    def difference(self) -> float | None:
        if self.before is None or self.after is None:
            return None
        return self.after.value - self.before.value


def score_rows(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[ScoreRow, ...]:
    """Pair the scores of two sheets by name; names with a score in neither are left out.

    Args:
        before: A sheet of scores.json: {name: {value, low, high, count} or null, ...}. Entries of
            another form (field tables, error counts) are no scores.
        after: The same of the adapted model.
    """
    sheets = before or {}, after or {}
    names = dict.fromkeys([*sheets[1], *sheets[0]])
    rows = (ScoreRow(name, *(_estimate(sheet.get(name)) for sheet in sheets)) for name in names)
    return tuple(row for row in rows if row.before or row.after)


def stage_names(rows: Sequence[ScoreRow]) -> tuple[str, str]:
    """Name the columns of before and after, with their numbers of rows where these differ."""
    before = max((row.before.count or 0 for row in rows if row.before), default=0)
    after = max((row.after.count or 0 for row in rows if row.after), default=0)
    if not before or not after or before == after:
        return "before", "after"
    return f"before, {before:,} rows", f"after, {after:,} rows"


def _estimate(score: Any) -> Estimate | None:
    if not isinstance(score, Mapping) or not isinstance(score.get("value"), int | float):
        return None
    return Estimate(score["value"], score.get("low"), score.get("high"), score.get("count"))
