"""The folder for what can be computed again: converted models, token ids, predictions."""

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """Return a folder below EXP_CACHE_DIR (default ~/.cache/exp), made if it is not there."""
    root = Path(os.environ.get("EXP_CACHE_DIR") or "~/.cache/exp").expanduser()
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
