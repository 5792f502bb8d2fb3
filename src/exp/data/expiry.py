"""What lies in the cache folder and was not used for long goes, so that the disk does not fill up.

The time of last use is kept as the time of access, which is set here by hand: many file systems do
not keep it by themselves, and the time of change tells readers whether a file is still the same.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

KEPT_DAYS = 30
"""Entries that were not used for so long are removed."""

_SECONDS_PER_DAY = 86_400


def mark_used(path: Path) -> None:
    """Say that an entry of the cache folder is in use today."""
    with suppress(OSError):  # somebody else's file, or a read-only folder: it is used all the same
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def remove_unused(folder: Path) -> None:
    """Remove the entries of a folder that were not used for `KEPT_DAYS`; ignore what refuses."""
    oldest = time.time() - KEPT_DAYS * _SECONDS_PER_DAY
    for entry in folder.iterdir():
        with suppress(OSError):
            if entry.stat().st_atime >= oldest:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
