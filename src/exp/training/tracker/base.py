"""What every tracker can do, and what it is told about a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a tracker shows of a run besides its curves. `config` is the resolved one, as JSON."""

    name: str
    project: str
    entity: str | None
    tags: tuple[str, ...]
    config: dict[str, Any]


class Tracker(Protocol):
    """A mirror of the logged points. It may fail and it may be slow: see `guard`."""

    def start(self, facts: RunFacts) -> None:
        """Begin a run; called first, and once."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves named in `values`."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows of text, such as predictions beside their references."""

    def finish(self, status: str) -> None:
        """End the run; `status` is "completed", "failed" or "interrupted"."""

    def abort(self) -> None:
        """Drop everything at once. May come from another thread while a call is under way."""
