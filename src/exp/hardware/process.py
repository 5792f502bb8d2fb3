"""Give this process the settings that torch holds globally."""

from exp.hardware.resolver import ResolvedHardware


def apply_to_process(hardware: ResolvedHardware) -> None:
    """Set the number of CPU threads and whether fp32 matrix products may use TF32."""
    import torch

    torch.set_num_threads(hardware.cpu_threads)
    torch.set_float32_matmul_precision("high" if hardware.tf32 else "highest")
