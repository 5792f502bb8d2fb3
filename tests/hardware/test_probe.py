import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch

from exp.config.schema import Accelerator, Precision
from exp.data.batch import Segments
from exp.hardware import probe
from exp.hardware.capability import Probe, ProbeResult
from exp.model.varlen_attention import varlen_attention, varlen_segments

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
CPU_PRECISIONS = [Precision.fp32, Precision.bf16]


@needs_bitsandbytes
@pytest.mark.parametrize("precision", CPU_PRECISIONS)
@pytest.mark.parametrize("part", [Probe.nf4, Probe.int8])
def test_bitsandbytes_computes_one_step_on_the_cpu(part: Probe, precision: Precision) -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    assert probe.run_probe(part, Accelerator.cpu, precision) == ProbeResult(True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_a_compiled_step_works_on_the_cpu(precision: Precision) -> None:
    assert probe.run_probe(Probe.compile, Accelerator.cpu, precision) == ProbeResult(True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("part", [Probe.nf4, Probe.int8, Probe.compile])
def test_a_step_works_on_the_gpu(part: Probe) -> None:
    precision = Precision.bf16 if torch.cuda.get_device_capability() >= (8, 0) else Precision.fp16
    assert probe.run_probe(part, Accelerator.cuda, precision) == ProbeResult(True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")
def test_a_step_of_flash_attention_works_on_the_gpu() -> None:
    result = probe.run_probe(Probe.flash_attention, Accelerator.cuda, Precision.bf16)
    assert result == ProbeResult(True)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_a_part_that_is_not_installed_does_not_work() -> None:
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.bf16)
    assert result == ProbeResult(False, "ModuleNotFoundError: No module named 'flash_attn'")


def fake_flash_attention(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_flash_attention_that_computes_is_believed(
    precision: Precision, plain_flash_attn: Callable[..., torch.Tensor]
) -> None:
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, precision)
    assert result == ProbeResult(True)


def test_flash_attention_is_probed_as_training_calls_it(
    monkeypatch: pytest.MonkeyPatch, plain_flash_attn: Callable[..., torch.Tensor]
) -> None:
    """An old release without one of the options is no release that training can use."""
    calls: list[dict[str, object]] = []

    def without_softcap(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *ends: Any,
        dropout_p: float,
        softmax_scale: float,
        causal: bool,
        deterministic: bool,
    ) -> torch.Tensor:
        return q

    def spy(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(options)
        return plain_flash_attn(*args, **options)

    fake_flash_attention(monkeypatch, spy)
    assert probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.bf16).ok
    segments = varlen_segments(Segments(0, torch.arange(4)[None], torch.arange(4)))
    states = torch.randn(3, 1, 1, 4, 8)
    varlen_attention(torch.nn.Module(), *states, None, scaling=1.0, segments=segments)
    assert calls[0].keys() == calls[1].keys()
    assert calls[0]["causal"] is calls[0]["deterministic"] is True
    fake_flash_attention(monkeypatch, without_softcap)
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.bf16)
    assert "unexpected keyword argument 'softcap'" in result.why


def test_only_the_first_line_of_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image is available\nCompile with TORCH_USE_CUDA_DSA\n")

    fake_flash_attention(monkeypatch, no_kernel)
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.bf16)
    assert result == ProbeResult(False, "RuntimeError: no kernel image is available")


def test_a_failure_without_words_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise NotImplementedError

    fake_flash_attention(monkeypatch, fail)
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.bf16)
    assert result == ProbeResult(False, "NotImplementedError")


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_a_backward_that_gives_nonsense_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    fake_flash_attention(monkeypatch, lambda q, *_, **options: q * factor)
    result = probe.run_probe(Probe.flash_attention, Accelerator.cpu, Precision.fp32)
    assert result == ProbeResult(False, "its gradient is zero or not finite")


@needs_bitsandbytes
def test_a_probe_leaves_the_random_numbers_as_they_were() -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert probe.run_probe(Probe.nf4, Accelerator.cpu, Precision.fp32).ok
    assert torch.equal(torch.get_rng_state(), before)
