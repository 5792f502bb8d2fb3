"""The fastest matrix product that this machine shows in a given type."""

import time

import torch

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
SECONDS_PER_SIZE = 0.5


def measure_gemm_peak(device: str, dtype: torch.dtype) -> float:
    """Multiply square matrices for about a second; return the best FLOP/s of a single product."""
    best = 0.0
    for size in SIZES[device]:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        started = time.perf_counter()
        while True:
            before = time.perf_counter()
            torch.matmul(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            best = max(best, 2 * size**3 / (now - before))
            if now - started > SECONDS_PER_SIZE:
                break
    return best
