"""`exp bench training|generation`: measure one of the two; imported only when asked for."""

import importlib

from exp.config.resolve import Resolved
from exp.config.schema import BenchConfig


def run(resolved: Resolved) -> int:
    """Hand over to the command of what is measured; return the exit code."""
    config: BenchConfig = resolved.config
    return int(importlib.import_module(f"exp.commands.bench_{config.what.name}").run(resolved))
