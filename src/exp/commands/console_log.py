"""Log lines on the console, as plain text."""

import logging

from exp.redaction import RedactingFilter


def log_to_console() -> None:
    """Let log lines reach the console as plain text, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("exp").setLevel(logging.INFO)
