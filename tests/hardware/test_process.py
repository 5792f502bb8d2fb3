import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from exp.config.schema import HardwareConfig
from exp.hardware.capability import Capability, ProbeResult, Versions
from exp.hardware.process import apply_to_process
from exp.hardware.resolver import resolve_hardware


@pytest.fixture(autouse=True)
def restored_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    matmul = torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)


def test_the_process_gets_threads_and_tf32_as_resolved() -> None:
    resolved = resolve_hardware(
        Capability(num_cpus=3, memory_gib=8.0, cpu_native_bf16=False),
        Versions(torch="2.13.0", transformers="5.23.0"),
        lambda *_: ProbeResult(False),
        HardwareConfig(name="cpu"),
    )
    apply_to_process(replace(resolved, tf32=True))
    assert torch.get_num_threads() == 3
    assert torch.get_float32_matmul_precision() == "high"
    apply_to_process(replace(resolved, tf32=False))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.thorough
def test_large_blocks_come_back_without_new_pages() -> None:
    counted = (
        "import resource, torch\n"
        "from exp.hardware.process import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "def faults():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def touch():\n"
        "    before = faults()\n"
        "    torch.ones(2**24)\n"
        "    return faults() - before\n"
        "print([touch() for _ in range(4)][-1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", counted], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1000  # 64 MiB have 16,384 pages
