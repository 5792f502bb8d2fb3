"""Checkpoints: folders of safetensors and JSON that are committed by a manifest.

A checkpoint counts only if every file has the size and the SHA-256 that MANIFEST.json gives, and
the manifest its own. Nothing else is ever parsed: no pickle, no file outside the manifest. Bytes
are parsed only after they were verified, and from the same read.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exp.errors import CheckpointError
from exp.publish import publish_folder, remove_folder, write_atomically, write_file
from exp.rundir import RunDir
from exp.training.manifest import (
    MANIFEST,
    json_bytes,
    manifest_bytes,
    read_files,
    seal,
    unseal,
    verify_files,
)

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"

_STEP_NAME = re.compile(r"step_(\d{6,})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a verified checkpoint."""

    path: Path
    step: int
    adapter: "dict[str, Tensor]"
    adapter_config: dict[str, Any]
    optimizer_tensors: "dict[str, Tensor]"
    state: dict[str, Any]


def write_checkpoint(
    run: RunDir,
    step: int,
    adapter: "Mapping[str, Tensor]",
    adapter_config: Mapping[str, Any],
    optimizer_tensors: "Mapping[str, Tensor]",
    state: Mapping[str, Any],
) -> Path:
    """Publish the checkpoint of an optimizer step, then let `last` point to it.

    In a run on several devices only the first process calls this.

    Args:
        run: The run folder.
        step: Optimizer steps that are done.
        adapter: Tensors by the names that PEFT gives them in its files.
        adapter_config: What PEFT keeps in adapter_config.json.
        optimizer_tensors: The tensors of `optimizer_to_tensors`; its structure belongs in `state`.
        state: Plain JSON; non-finite numbers are refused.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: Another intact checkpoint of this step is there.
        PublishError: The storage refused; the checkpoints before are untouched.
    """
    files = {
        ADAPTER: _tensor_bytes(adapter),
        ADAPTER_CONFIG: json_bytes(adapter_config),
        OPTIMIZER: _tensor_bytes(optimizer_tensors),
        STATE: json_bytes(state),
    }
    manifest = manifest_bytes(step, files)
    path = run.checkpoint(step)
    if not _same_is_there(path, manifest):
        size = sum(map(len, files.values())) + len(manifest)
        with publish_folder(path, bytes_needed=size) as staging:
            for name, data in files.items():
                write_file(staging / name, data)
            write_file(staging / MANIFEST, manifest)
    write_atomically(_pointer(run, "last"), seal({"name": path.name, "step": step}))
    return path


def mark_best(run: RunDir, step: int, score: float) -> None:
    """Let `best` point to the checkpoint of `step`.

    Raises:
        CheckpointError: That checkpoint is missing or damaged.
    """
    path = run.checkpoint(step)
    verify_checkpoint(path)
    pointer = {"name": path.name, "step": step, "score": score}
    write_atomically(_pointer(run, "best"), seal(pointer))


def verify_checkpoint(path: Path) -> None:
    """Compare every file with the manifest, by size and SHA-256.

    Raises:
        CheckpointError: Something is missing or differs; the message names the file.
    """
    verify_files(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint into host memory, verifying the very bytes that are parsed.

    Raises:
        CheckpointError: Something is missing or damaged; the message names the file.
    """
    from safetensors.torch import load

    step, content = read_files(path)
    return Checkpoint(
        path=path,
        step=step,
        adapter=load(content[ADAPTER]),
        adapter_config=json.loads(content[ADAPTER_CONFIG]),
        optimizer_tensors=load(content[OPTIMIZER]),
        state=json.loads(content[STATE]),
    )


def find_checkpoint(run: RunDir, which: str) -> Path:
    """Find a verified checkpoint.

    Args:
        run: The run folder.
        which: "last", the newest that is intact (damaged ones are skipped with a warning each);
            "best", exactly the one that validation chose; or a name like step_000120.

    Raises:
        CheckpointError: There is none. For "best" and a name no other one is taken in its place.
    """
    if which == "last":
        return _last(run)
    if which == "best":
        pointer = _read_pointer(run, "best")
        if pointer is None:
            raise CheckpointError(
                f"Run {run.name} has no best checkpoint: {_pointer(run, 'best').name} is missing "
                "or damaged.",
                where=str(_pointer(run, "best")),
                fix=_alternatives(run),
            )
        which = pointer["name"]
    path = run.checkpoints / which
    if not _STEP_NAME.fullmatch(which) or not path.is_dir():
        raise CheckpointError(
            f"Run {run.name} has no checkpoint {which!r}.",
            where=str(run.checkpoints),
            fix=_alternatives(run),
        )
    try:
        verify_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=error.where, fix=_alternatives(run)) from error
    return path


def prune_checkpoints(run: RunDir, keep: int) -> list[Path]:
    """Delete old checkpoints, so that the newest `keep` intact ones and the best stay.

    Nothing is deleted unless the newest one is intact, nor while it is unknown which one is best.

    Returns:
        The folders that were deleted.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    best = _read_pointer(run, "best")
    if best is None and _pointer(run, "best").exists():
        log.warning("%s is damaged; no checkpoint is deleted.", _pointer(run, "best"))
        return []
    newest_first = _steps(run)
    kept = 0
    for index, path in enumerate(newest_first):
        if _verified(path):
            kept += 1
        elif index == 0:
            log.warning("The newest checkpoint is damaged; no checkpoint is deleted.")
            return []
        if kept == keep:
            old = newest_first[index + 1 :]
            break
    else:
        return []
    doomed = [path for path in old if best is None or path.name != best["name"]]
    for path in reversed(doomed):
        remove_folder(path)
    return doomed


def _last(run: RunDir) -> Path:
    newest_first = _steps(run)
    pointer = _read_pointer(run, "last")
    if pointer and all(path.name != pointer["name"] for path in newest_first):
        log.warning("The last checkpoint, %s, is missing.", run.checkpoints / pointer["name"])
    for path in newest_first:
        if _verified(path):
            return path
    raise CheckpointError(
        f"Run {run.name} has no intact checkpoint.",
        where=str(run.checkpoints),
        fix="start the run anew, under another name",
    )


def _steps(run: RunDir) -> list[Path]:
    """List the checkpoint folders, newest first."""
    found = {
        int(match[1]): path
        for path in run.checkpoints.glob("step_*")
        if (match := _STEP_NAME.fullmatch(path.name)) and path.is_dir()
    }
    return [found[step] for step in sorted(found, reverse=True)]


def _verified(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except CheckpointError as error:
        log.warning("Checkpoint %s is skipped. %s", path.name, error.what)
        return False
    return True


def _alternatives(run: RunDir) -> str:
    intact = [path.name for path in _steps(run) if _verified(path)]
    if not intact:
        return "start the run anew; it has no intact checkpoint"
    return f"checkpoint=last, or one of {', '.join(intact)}"


def _same_is_there(path: Path, manifest: bytes) -> bool:
    """Tell whether this very checkpoint is on disk; clear a damaged one out of the way."""
    if not path.exists():
        return False
    if not _verified(path):
        log.warning("The damaged checkpoint %s is replaced.", path)
        remove_folder(path)
        return False
    if (path / MANIFEST).read_bytes() == manifest:
        return True
    raise CheckpointError(
        f"An intact checkpoint {path.name} is there already, with other content.",
        where=str(path),
        fix=f"rm -r {path}, or go on from checkpoint=last",
    )


def _pointer(run: RunDir, which: str) -> Path:
    return run.checkpoints / f"{which}.json"


def _read_pointer(run: RunDir, which: str) -> dict[str, Any] | None:
    """Read best.json or last.json; None where it is missing or not what was written."""
    path = _pointer(run, which)
    try:
        pointer = unseal(path.read_bytes())
    except FileNotFoundError:
        return None
    if pointer is not None and _STEP_NAME.fullmatch(str(pointer.get("name"))):
        return pointer
    log.warning("%s is damaged and not used.", path)
    return None


def _tensor_bytes(tensors: "Mapping[str, Tensor]") -> bytes:
    from safetensors.torch import save

    # A copy, because safetensors refuses tensors that share memory.
    own = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    # PEFT and transformers want to be told the framework.
    return save(own, metadata={"format": "pt"})
