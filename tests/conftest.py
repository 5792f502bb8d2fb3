"""What holds for every test: no network, no one's settings, one thread, seeded numbers."""

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

# Libraries read these when they are imported, and child processes inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="offline",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("EXP_CONF_DIR", "EXP_FULL_ERROR", "HYDRA_FULL_ERROR", "WANDB_API_KEY"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_cache_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty cache folder, so that none sees what another, or a person, left."""
    with tempfile.TemporaryDirectory(prefix="exp-cache-") as folder:
        monkeypatch.setenv("EXP_CACHE_DIR", folder)
        yield


@pytest.fixture(autouse=True)
def seeded_torch() -> None:
    """Seed torch; pytest-randomly seeds the rest. Tests that do not need torch do not import it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
