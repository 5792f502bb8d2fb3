"""The folder for what can be computed again: converted models, token ids, predictions."""

import os
from pathlib import Path

from exp.errors import UserError


def cache_dir(*parts: str) -> Path:
    """Return a folder below EXP_CACHE_DIR (default ~/.cache/exp), made if it is not there.

    Raises:
        UserError: It cannot be made, or written to.
    """
    chosen = os.environ.get("EXP_CACHE_DIR") or "~/.cache/exp"
    try:
        folder = Path(chosen).expanduser().joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "it cannot be written to"
    # Path.expanduser raises RuntimeError for a user that is not there.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise UserError(
        f"The cache folder {chosen} cannot be used: {reason}.",
        where=f"EXP_CACHE_DIR={chosen}" if "EXP_CACHE_DIR" in os.environ else "default",
        fix="EXP_CACHE_DIR=<a folder that can be written to>",
    )
