"""Give this process the settings that torch and the C allocator hold globally."""

import ctypes
import platform

from exp.hardware.resolver import ResolvedHardware

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt."""

KEPT_BYTES = 2**31 - 1
"""The most that mallopt's int can say."""


def apply_to_process(hardware: ResolvedHardware) -> None:
    """Set the number of CPU threads, the allocator, and whether fp32 products may use TF32."""
    import torch

    torch.set_num_threads(hardware.cpu_threads)
    torch.set_float32_matmul_precision("high" if hardware.tf32 else "highest")
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that were freed, for the next step to take.

    By default it hands them back, and the kernel clears each page again when it is touched next;
    the longer a training step's blocks are, the more of its time goes there.

    Returns:
        Whether the C library took the settings; False where it is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
