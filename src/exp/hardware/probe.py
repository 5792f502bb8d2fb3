"""One forward and backward of an optional part, to learn whether it works on this machine.

Versions do not tell: wheels lack kernels for a card that their release notes name, and the reverse.
A probe leaves the random numbers as they were, so that a seed means the same with and without it.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from exp.config.schema import Accelerator, Precision
from exp.hardware.capability import Probe, ProbeResult

if TYPE_CHECKING:
    import torch

Step = Callable[["torch.Tensor"], "torch.Tensor"]
StepMaker = Callable[["torch.device", "torch.dtype"], Step]
# Wide enough for the blocks of every kernel (64 weights in nf4), small enough to cost nothing.
WIDTH = 64


def run_probe(part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
    """Try one step of a part on the first device; an exception of any kind is a no.

    Args:
        part: What to try.
        accelerator: Where: cpu or cuda.
        precision: The type that the run would compute in; not auto.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    device = torch.device(accelerator.value)
    cuda_devices = [0] if accelerator is Accelerator.cuda else []
    try:
        with torch.random.fork_rng(devices=cuda_devices):
            return _try_step(_STEPS[part], device, dtypes[precision.value])
    # Broken kernels, compilers and binary wheels raise whatever they like.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return ProbeResult(False, f"{type(error).__name__}: {lines[0]}".rstrip(": "))


def _try_step(make: StepMaker, device: "torch.device", dtype: "torch.dtype") -> ProbeResult:
    import torch

    step = make(device, dtype)
    x = torch.linspace(-1, 1, 8 * WIDTH, device=device)
    x = x.to(dtype).reshape(8, WIDTH).requires_grad_()
    step(x).float().square().sum().backward()
    if x.grad is None or not bool(x.grad.isfinite().all() and x.grad.any()):
        return ProbeResult(False, "its gradient is zero or not finite")
    return ProbeResult(True)


def _flash_attention_step(device: "torch.device", dtype: "torch.dtype") -> Step:
    import torch
    from flash_attn import flash_attn_varlen_func

    # As training calls it: a prefix of three tokens, and a suffix of five that sees it.
    query_ends = torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
    key_ends = torch.tensor([0, 3, 11], dtype=torch.int32, device=device)

    def step(x: "torch.Tensor") -> "torch.Tensor":
        query = x.reshape(8, 1, WIDTH)  # tokens heads width
        key = torch.cat([query[:3], query])
        attended: torch.Tensor = flash_attn_varlen_func(
            query,
            key,
            key,
            query_ends,
            key_ends,
            5,
            8,
            dropout_p=0.0,
            softmax_scale=WIDTH**-0.5,
            causal=True,
            softcap=0.0,
            deterministic=True,
        )
        return attended

    return step


def quiet_bitsandbytes() -> None:
    """Keep its notes off the console: that a faster CPU kernel could be fetched, and casts."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _linear_step(kind: str, device: "torch.device", dtype: "torch.dtype") -> Step:
    quiet_bitsandbytes()
    import torch
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    layer: torch.nn.Module
    if kind == "nf4":
        layer = Linear4bit(
            WIDTH,
            WIDTH,
            bias=False,
            compute_dtype=dtype,
            quant_type="nf4",
            compress_statistics=True,
        )
    else:
        layer = Linear8bitLt(WIDTH, WIDTH, bias=False, has_fp16_weights=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, WIDTH * WIDTH).reshape(WIDTH, WIDTH))
    return layer.to(device)


def _compile_step(device: "torch.device", dtype: "torch.dtype") -> Step:
    import torch

    weight = torch.linspace(-1, 1, WIDTH * WIDTH, device=device).reshape(WIDTH, WIDTH).to(dtype)

    def step(x: "torch.Tensor") -> "torch.Tensor":
        return torch.nn.functional.silu(x @ weight)

    return torch.compile(step)


_STEPS: dict[Probe, StepMaker] = {
    Probe.flash_attention: _flash_attention_step,
    Probe.nf4: partial(_linear_step, "nf4"),
    Probe.int8: partial(_linear_step, "int8"),
    Probe.compile: _compile_step,
}
