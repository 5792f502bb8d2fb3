"""From `tracker=...` to the tracker, by a closed table."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from exp.config.schema import TrackerConfig, TrackerKind
from exp.errors import MissingExtraError
from exp.training.tracker.base import RunFacts, Tracker
from exp.training.tracker.csv import CsvTracker
from exp.training.tracker.guard import GuardedTracker
from exp.training.tracker.tensorboard import TensorboardTracker
from exp.training.tracker.wandb import WandbTracker


class NoTracker:
    """The tracker of a run that has none."""

    def start(self, facts: RunFacts) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        pass

    def finish(self, status: str) -> None:
        pass

    def abort(self) -> None:
        pass


def open_tracker(config: TrackerConfig, directory: Path) -> Tracker:
    """Make the tracker of a run; call `start` on it next.

    Args:
        config: Which one, and how long it may take.
        directory: Where it may write; `RunDir.tracker`.

    Raises:
        MissingExtraError: The tracker's package is not installed. Found out before training, as
            everything later is only a warning.
    """
    if config.kind is TrackerKind.none:
        return NoTracker()
    package = _PACKAGES.get(config.kind)
    if package and find_spec(package) is None:
        raise MissingExtraError(package, extra=package, where=f"tracker={config.kind.name}")
    make = _TRACKERS[config.kind]
    return GuardedTracker(make(config, directory), config.timeout_seconds)


_TRACKERS: dict[TrackerKind, Callable[[TrackerConfig, Path], Tracker]] = {
    TrackerKind.csv: lambda config, directory: CsvTracker(directory),
    TrackerKind.tensorboard: lambda config, directory: TensorboardTracker(directory),
    TrackerKind.wandb: lambda config, directory: WandbTracker(directory, config.timeout_seconds),
}
# Packages of optional extras, by the extra's name; wandb is a dependency of its own right.
_PACKAGES = {TrackerKind.tensorboard: "tensorboard"}
