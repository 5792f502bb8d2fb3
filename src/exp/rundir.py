"""Every file name inside a run folder, in one place; making a run folder that is nobody else's."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from exp.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class RunDir:
    """The paths of one run. Knows names only; reads and writes nothing but its own folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def template(self) -> Path:
        return self.path / "template.safetensors"

    @property
    def grounding(self) -> Path:
        return self.path / "grounding.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def scores_lock(self) -> Path:
        return self.path / ".scores.lock"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def tracker(self) -> Path:
        return self.path / "tracker"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step_{step:06d}"

    def predictions(self, split: str, stage: str = "after") -> Path:
        """`stage` is "before" (the base model) or "after" (with the adapter)."""
        name = split if stage == "after" else f"{split}_{stage}"
        return self.path / "predictions" / f"{name}.jsonl"


def create_run_dir(parent: Path, name: str | None) -> RunDir:
    """Make a new run folder below `parent`; never reuse one.

    Without a name the folder is called by the time and four random bytes, so that runs started in
    the same second by different processes do not meet.

    Raises:
        CheckpointError: A folder of that name is there already, or none can be made.
    """
    unique = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    path = parent / unique
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        if not path.exists():
            raise CheckpointError(
                f"The run folder {path} cannot be made: {error.strerror}.",
                where=f"output_dir={parent}",
                fix="output_dir=<a folder that can be written>",
            ) from error
        raise CheckpointError(
            f"The run folder {path} exists already; a run never writes over another.",
            where=f"name={name}",
            fix="choose another name=..., or leave it out to get a new one",
        ) from None
    return RunDir(path)


def open_run_dir(path: str | Path) -> RunDir:
    """Open the folder of a finished or interrupted run.

    Raises:
        CheckpointError: It is not a run folder.
    """
    run = RunDir(Path(path).expanduser().resolve())
    if not run.config.is_file():
        raise CheckpointError(
            f"{path} is not a run folder: it has no {run.config.name}.",
            where=f"run={path}",
            fix="give the folder that `exp train` printed, e.g. run=outputs/<task>/<name>",
        )
    return run
