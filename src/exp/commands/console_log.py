"""Log lines on the console, as plain text."""

import logging
import os
import warnings

from exp.redaction import RedactingFilter


def log_to_console() -> None:
    """Let log lines reach the console as plain text, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("exp").setLevel(logging.INFO)
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Leave out what libraries tell their own developers; their errors still come through."""
    # It misses an optional kernel package that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # PEFT and Lightning call what transformers and torch are about to rename.
    for module in ("transformers", "lightning", "peft"):
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}\b.*")
