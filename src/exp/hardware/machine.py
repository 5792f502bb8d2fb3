"""The facts of this machine: processors, memory, versions. Changes nothing."""

import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from exp.hardware.capability import Capability, CudaDevice, Versions

GIB = 1024**3
# x86 with AVX512 or AMX, and Arm; /proc/cpuinfo calls them so.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# What CUDA opens first: on a plain Linux, under Windows' Linux, on a Tegra board.
DRIVER_FILES = ("dev/nvidiactl", "dev/dxg", "dev/nvhost-ctrl", "dev/nvmap")


def read_capability() -> Capability:
    """Look at the processors and the memory that this process may use."""
    return Capability(
        num_cpus=count_usable_cpus(),
        memory_gib=read_usable_memory() / GIB,
        cpu_native_bf16=cpu_has_bf16(),
        cuda_devices=read_cuda_devices(),
        nvidia_driver=Path("/proc/driver/nvidia/version").exists(),
    )


def read_versions() -> Versions:
    """Look up what is installed; torch is imported only where there is a CUDA driver."""
    torch_version, cuda = _read_torch_build()
    return Versions(
        torch=torch_version,
        transformers=_installed_version("transformers") or "",
        cuda=cuda,
        cuda_archs=_read_cuda_archs(),
        bitsandbytes=_installed_version("bitsandbytes"),
        flash_attn=_installed_version("flash-attn"),
        gptqmodel=_installed_version("gptqmodel"),
        optimum=_installed_version("optimum"),
    )


def has_cuda_driver(root: Path = Path("/")) -> bool:
    """Whether CUDA can have a device here; where there is no Linux, only torch can tell."""
    if platform.system() != "Linux":
        return True
    return any((root / name).exists() for name in DRIVER_FILES)


def _read_torch_build() -> tuple[str, str | None]:
    """Read torch's version and the CUDA version that it was built for, from its version.py alone.

    The version in its package data lacks the build, like +cpu, for some wheels.
    """
    package = importlib.util.find_spec("torch")
    assert package is not None, "torch is a dependency of exp"
    assert package.origin is not None, "torch is not a namespace package"
    file = Path(package.origin).with_name("version.py")
    spec = importlib.util.spec_from_file_location("torch_version", file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.__version__), module.cuda


def _read_cuda_archs() -> tuple[str, ...]:
    if not has_cuda_driver():
        return ()
    import torch

    return tuple(torch.cuda.get_arch_list())


def _installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def read_cuda_devices() -> tuple[CudaDevice, ...]:
    """List the CUDA devices that are visible to this process, in their order.

    Importing torch takes seconds, which commands that compute nothing need not spend.
    """
    if not has_cuda_driver():
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            # With emulation included a T4 would count as a bf16 device.
            native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        devices.append(
            CudaDevice(
                name=properties.name,
                compute_capability=(properties.major, properties.minor),
                memory_gib=properties.total_memory / GIB,
                native_bf16=native_bf16,
            )
        )
    return tuple(devices)


def cpu_has_bf16(root: Path = Path("/")) -> bool:
    """Whether the CPU has instructions for bf16, by the flags that Linux shows."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return not BF16_FLAGS.isdisjoint(value.split())
    return False


def count_usable_cpus(root: Path = Path("/")) -> int:
    """Count the cores that affinity and the container's quota leave to this process."""
    if hasattr(os, "sched_getaffinity"):
        num_cpus = len(os.sched_getaffinity(0))
    else:
        num_cpus = os.cpu_count() or 1
    for folder in _cgroup_folders(root, "cpu"):
        quota = _read_words(folder / "cpu.max")
        if not quota:
            quota = _read_words(folder / "cpu.cfs_quota_us")
            quota += _read_words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            # Rounded down: a thread more than the quota is stopped again and again.
            num_cpus = min(num_cpus, int(quota[0]) // int(quota[1]))
    return max(1, num_cpus)


def read_usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or the container's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read_words(folder / name)
            if limit and limit[0] != "max":
                memory = min(memory, int(limit[0]))
    return memory


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield this process's control group and all above it, each of which may set a limit.

    In the second version of control groups all controllers share one tree, in the first each has
    its own. Inside a container the group's own folder is often not visible; those above it are.
    """
    if platform.system() != "Linux":
        return
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    mount = root / "sys/fs/cgroup"
    for line in [*lines, "0::/", f"1:{controller}:/"]:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top = mount
        elif controller in controllers.split(","):
            top = mount / controller
        else:
            continue
        folder = top / path.lstrip("/")
        yield folder
        for parent in folder.parents:
            if not parent.is_relative_to(top):
                break
            yield parent


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def read_driver_version(root: Path = Path("/")) -> str | None:
    """Return the version of the NVIDIA driver as Linux shows it, None if there is none."""
    words = _read_words(root / "proc/driver/nvidia/version")
    return next((word for word in words if re.fullmatch(r"\d+\.\d+(\.\d+)?", word)), None)
