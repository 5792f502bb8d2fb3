import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from exp.hardware import machine
from exp.hardware.capability import CudaDevice

TOTAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
CORES = 16


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)), raising=False)


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, CORES),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, CORES),
        ({"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, CORES),
        # The limit of a group above this one holds too.
        (
            {
                "proc/self/cgroup": "0::/user/job\n",
                "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
            },
            2,
        ),
        # The first version of control groups.
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            CORES,
        ),
    ],
)
@pytest.mark.usefixtures("sixteen_cores")
def test_the_quota_of_a_container_limits_the_cores(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert machine.count_usable_cpus(write_files(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, TOTAL),
        ({"sys/fs/cgroup/memory.max": "max\n"}, TOTAL),
        ({"sys/fs/cgroup/memory.max": "1048576\n"}, 1048576),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152\n"}, 2097152),
        # No limit, as the first version of control groups writes it.
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, TOTAL),
        (
            {
                "proc/self/cgroup": "0::/pod/container\n",
                "sys/fs/cgroup/pod/memory.max": "3145728\n",
                "sys/fs/cgroup/pod/container/memory.max": "4194304\n",
            },
            3145728,
        ),
        # Inside the container the group's own folder is not visible.
        (
            {
                "proc/self/cgroup": "7:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "5242880\n",
            },
            5242880,
        ),
    ],
)
def test_the_limit_of_a_container_limits_the_memory(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert machine.read_usable_memory(write_files(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_fp16\n", False),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name\t: a CPU with avx512_bf16 in its name\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_bf16_is_native_where_the_flags_say_so(
    tmp_path: Path, cpuinfo: str, expected: bool
) -> None:
    assert machine.cpu_has_bf16(write_files(tmp_path, {"proc/cpuinfo": cpuinfo})) is expected


def test_a_system_without_cpuinfo_has_no_native_bf16(tmp_path: Path) -> None:
    assert machine.cpu_has_bf16(tmp_path) is False


def test_a_t4_is_read_without_the_bf16_that_torch_emulates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = SimpleNamespace(name="Tesla T4", major=7, minor=5, total_memory=15 * 1024**3)
    monkeypatch.setattr(machine, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    t4 = CudaDevice("Tesla T4", (7, 5), 15.0, native_bf16=False)
    assert machine.read_cuda_devices() == (t4, t4)


def test_this_machine_has_a_core_and_memory() -> None:
    capability = machine.read_capability()
    assert capability.num_cpus >= 1
    assert 0 < capability.memory_gib <= TOTAL / 1024**3
    assert bool(capability.cuda_devices) is torch.cuda.is_available()


@pytest.mark.parametrize(
    ("system", "files", "expected"),
    [
        ("Linux", {}, False),
        ("Linux", {"dev/null": ""}, False),
        ("Linux", {"dev/nvidiactl": ""}, True),
        ("Linux", {"dev/dxg": ""}, True),
        ("Windows", {}, True),
    ],
)
def test_a_linux_without_a_driver_has_no_cuda_device(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    files: dict[str, str],
    expected: bool,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    assert machine.has_cuda_driver(write_files(tmp_path, files)) is expected


@pytest.mark.skipif(machine.has_cuda_driver(), reason="torch is asked where there is a driver")
def test_a_machine_without_a_driver_is_read_without_importing_torch() -> None:
    code = (
        "import sys; from exp.hardware.machine import read_capability, read_versions\n"
        "read_capability(); print(read_versions().torch, 'torch' in sys.modules)"
    )
    shown = subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True)
    assert shown.split() == [torch.__version__, "False"]


def test_the_versions_are_those_that_are_imported() -> None:
    import transformers

    versions = machine.read_versions()
    assert versions.torch == torch.__version__
    assert versions.transformers == transformers.__version__
    assert versions.cuda == torch.version.cuda
    assert versions.cuda_archs == tuple(torch.cuda.get_arch_list())


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_found)
    versions = machine.read_versions()
    assert versions.bitsandbytes is None
    assert versions.flash_attn is None
