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
