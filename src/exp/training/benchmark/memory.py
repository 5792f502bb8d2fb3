"""Peak memory of this process since a mark: resident bytes on a CPU, allocated ones on a GPU."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"


@dataclass(frozen=True, slots=True)
class MemoryMark:
    """A moment that later peaks are compared with; make it before the model is loaded."""

    device: str
    resident_bytes: int

    def peak_bytes(self) -> int | None:
        """The peak since the mark, above what was in use then; None if the system does not say."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        peak = _status_bytes("VmHWM")
        return None if peak is None else peak - self.resident_bytes


def mark_memory(device: str) -> MemoryMark:
    """Forget earlier peaks, and remember what is in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        # Not getrusage: its maximum is inherited from the process that started this one.
        # Some containers forbid it; the peak of the imports is then counted as well, which matters
        # only where training needs less than they do.
        with suppress(OSError):
            CLEAR_REFS.write_text(FORGET_PEAK)
    return MemoryMark(device, _status_bytes("VmRSS") or 0)


def _status_bytes(name: str) -> int | None:
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
