"""FlashAttention is believed at a model's own shapes if it gives what PyTorch's attention gives.

The kernel is for CUDA; one that rounds as it does stands in for it here.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import Attention, Layout
from exp.errors import ModelError
from exp.model import varlen_check
from exp.model.varlen_check import (
    AttentionChoice,
    Heads,
    heads_obstacle,
    settle_attention,
    varlen_obstacle,
)

Tiny = Callable[..., PreTrainedModel]
Mask = Callable[[int, int], Tensor]

SHAPES = [(9, 3, 64), (4, 1, 256), (4, 2, 8), (16, 8, 128)]
HALVES = (torch.bfloat16, torch.float16)


def heads(
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.bfloat16,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Heads:
    num_queries, num_keys, width = shape
    device = torch.device("cpu")
    scaling = width**-0.5
    return Heads(num_queries, num_keys, width, width, dtype, device, scaling, softcap, dropout)


def aligned(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


class Rounding(torch.autograd.Function):
    """One sequence by the kernel's arithmetic: sums in fp32, operands of products in 16 bits.

    The backward takes the sum over weights from the rounded output. Dao 2023, FlashAttention-2,
    algorithm 2. https://arxiv.org/abs/2307.08691
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float, cap: float
    ) -> Tensor:
        shape = (k.shape[1], q.shape[1] // k.shape[1])
        keys, values = (each.repeat_interleave(shape[1], 1).float() for each in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q.float(), keys) * scale
        squash = torch.tanh(scores / cap) if cap else None
        if squash is not None:
            scores = cap * squash
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0)
        output = torch.einsum("hij,jhd->ihd", weights.to(q.dtype).float(), values).to(q.dtype)
        ctx.save_for_backward(q, keys, values, weights, output, squash)
        ctx.scale, ctx.shape = scale, shape
        return output

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        q, keys, values, weights, output, squash = ctx.saved_tensors
        narrow, up = q.dtype, slope.float()
        mean = (up * output.float()).sum(-1).T.unsqueeze(-1)
        of_scores = weights * (torch.einsum("ihd,jhd->hij", up, values) - mean)
        if squash is not None:
            of_scores = of_scores * (1 - squash.square())
        of_scores, weights = (each.to(narrow).float() for each in (of_scores, weights))
        of_query = torch.einsum("hij,jhd->ihd", of_scores, keys) * ctx.scale
        of_key = torch.einsum("hij,ihd->jhd", of_scores, q.float()) * ctx.scale
        of_value = torch.einsum("hij,ihd->jhd", weights, up)
        grouped = (
            each.to(narrow).unflatten(1, ctx.shape).float().sum(2).to(narrow)
            for each in (of_key, of_value)
        )
        return of_query.to(narrow), *grouped, None, None, None


def install(
    monkeypatch: pytest.MonkeyPatch, mask: Mask = aligned, factor: float = 1.0, caps: bool = True
) -> None:
    import flash_attn

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_ends: Tensor,
        key_ends: Tensor,
        *_: int,
        **options: Any,
    ) -> Tensor:
        if options["softcap"] and options["dropout_p"]:
            raise RuntimeError("Softcapping does not support dropout for now\nat flash_api.cpp")
        scale, cap = options["softmax_scale"] * factor, options["softcap"] * caps
        outputs = []
        bounds = zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True)
        for (first, last), (start, end) in bounds:
            seen = mask(last - first, end - start)
            own = (q[first:last], k[start:end], v[start:end])
            outputs.append(Rounding.apply(*own, seen, scale, cap))
        return torch.cat(outputs)

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", flash_attn_varlen_func)


@pytest.fixture
def kernel(
    plain_flash_attn: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Put a kernel in, with faults if some are given: `kernel(mask=...)`."""
    return lambda **faults: install(monkeypatch, **faults)


def top_left(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril()


def no_mask(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool)


def future_seen(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries + 1)


def itself_unseen(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries - 1)


def prefix_unseen(queries: int, keys: int) -> Tensor:
    seen = aligned(queries, keys)
    seen[:, : keys - queries] = False
    return seen


def prefix_end_unseen(queries: int, keys: int) -> Tensor:
    seen = aligned(queries, keys)
    seen[:, max(0, keys - queries - 1) : keys - queries] = False
    return seen


def first_unseen(queries: int, keys: int) -> Tensor:
    seen = aligned(queries, keys)
    seen[:, : int(keys > queries)] = False
    return seen


MASKS = (
    top_left,
    no_mask,
    future_seen,
    itself_unseen,
    prefix_unseen,
    prefix_end_unseen,
    first_unseen,
)


@pytest.mark.parametrize("softcap", [None, 50.0, pytest.param(30.0, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounding_is_far_within_the_limit(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    softcap: float | None,
    kernel: Callable[..., None],
) -> None:
    kernel()
    off = varlen_check._off(heads(shape, dtype, softcap))
    assert max(off.values()) <= 0.55 * varlen_check.MOST_OFF
    assert heads_obstacle(heads(shape, dtype, softcap)) is None


@pytest.mark.parametrize("softcap", [None, 50.0])
@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.__name__)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
@pytest.mark.thorough
def test_a_wrong_mask_is_twice_beyond_the_limit(
    shape: tuple[int, int, int], mask: Mask, softcap: float | None, kernel: Callable[..., None]
) -> None:
    kernel(mask=mask)
    off = varlen_check._off(heads(shape, softcap=softcap))
    assert max(off.values()) >= 2 * varlen_check.MOST_OFF
    assert "differ by" in (heads_obstacle(heads(shape, softcap=softcap)) or "")


@pytest.mark.parametrize(
    ("faults", "softcap"),
    [({"factor": 1.1}, None), ({"caps": False}, 30.0), ({"caps": False}, 50.0)],
    ids=["factor", "no softcap of 30", "no softcap of 50"],
)
def test_other_scores_are_beyond_the_limit(
    faults: dict[str, Any], softcap: float | None, kernel: Callable[..., None]
) -> None:
    kernel(**faults)
    for shape in SHAPES:
        assert heads_obstacle(heads(shape, softcap=softcap)) is not None


def test_heads_that_read_other_keys_are_beyond_the_limit(
    kernel: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import flash_attn

    kernel()
    right = flash_attn.flash_attn_varlen_func

    def shuffled(q: Tensor, k: Tensor, v: Tensor, *ends: Any, **options: Any) -> Tensor:
        return right(q, k.roll(1, dims=1), v.roll(1, dims=1), *ends, **options)

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", shuffled)
    assert heads_obstacle(heads(SHAPES[0])) is not None


@pytest.mark.parametrize("factor", [0.9, 0.0, float("nan")])
def test_a_wrong_backward_is_seen_behind_right_outputs(
    factor: float, kernel: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    right = Rounding.backward

    def spoiled(ctx: Any, slope: Tensor) -> Any:
        of_query, of_key, *rest = right(ctx, slope)
        return of_query, of_key * factor, *rest

    monkeypatch.setattr(Rounding, "backward", staticmethod(spoiled))
    found = heads_obstacle(heads(SHAPES[0]))
    assert found is not None
    assert "gradients of keys differ by" in found


def test_what_the_kernel_cannot_do_is_said_with_its_shape(kernel: Callable[..., None]) -> None:
    kernel()
    assert heads_obstacle(heads(SHAPES[2], softcap=30.0)) is None
    assert heads_obstacle(heads(SHAPES[2], softcap=30.0, dropout=0.1)) == (
        "4 heads on 2, 8 wide, in bfloat16: RuntimeError: "
        "Softcapping does not support dropout for now"
    )


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_a_missing_package_is_an_obstacle(tiny: Tiny) -> None:
    obstacle = varlen_obstacle(tiny("llama").to(torch.bfloat16))
    assert "No module named 'flash_attn'" in (obstacle or "")


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("llama", {}, {(4, 2, 8, 8**-0.5, None, 0.0)}),
        ("qwen3", {"head_dim": 16}, {(4, 2, 16, 0.25, None, 0.0)}),
        ("gemma2", {}, {(4, 2, 8, 8**-0.5, 2.0, 0.0)}),
        ("granite", {"attention_dropout": 0.25}, {(4, 2, 8, 0.2, None, 0.25)}),
    ],
)
def test_a_model_is_tried_at_its_own_shapes(
    tiny: Tiny, name: str, changes: dict[str, Any], expected: set[Any]
) -> None:
    found = varlen_check._heads_of(tiny(name, **changes).to(torch.bfloat16))
    assert {
        (h.num_queries, h.num_keys, h.width, h.scaling, h.softcap, h.dropout) for h in found
    } == expected
    assert {h.dtype for h in found} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite"])
def test_a_right_kernel_is_taken_and_everything_left_as_it_was(
    tiny: Tiny, name: str, kernel: Callable[..., None]
) -> None:
    kernel()
    base = tiny(name).to(torch.bfloat16)
    implementation, before = base.config._attn_implementation, torch.get_rng_state()
    choice = settle_attention(base, Layout.packed, Attention.flash, Attention.auto)
    assert choice == AttentionChoice(Attention.flash)
    assert base.config._attn_implementation == implementation
    assert not base.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_wrong_kernel_is_replaced_under_auto_and_refused_where_it_was_asked_for(
    tiny: Tiny, kernel: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exp")
    kernel(mask=top_left)
    base = tiny("llama").to(torch.bfloat16)
    layout = Layout.shared_prefix
    choice = settle_attention(base, layout, Attention.flash, Attention.auto)
    assert choice.attention is Attention.sdpa
    assert "4 heads on 2, 8 wide, in bfloat16" in (choice.reason or "")
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (logging.INFO, f"hardware.attention=sdpa: {choice.reason}")
    ]
    with pytest.raises(ModelError) as caught:
        settle_attention(base, layout, Attention.flash, Attention.flash)
    assert caught.value.where == "hardware.attention=flash"
    assert caught.value.fix == "hardware.attention=sdpa"


@pytest.mark.parametrize(
    ("wanted", "level"), [(Attention.auto, logging.INFO), (Attention.flash, logging.WARNING)]
)
def test_nothing_is_tried_where_the_kernel_has_no_part(
    tiny: Tiny, wanted: Attention, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exp")
    base = tiny("llama")
    plain = settle_attention(base, Layout.packed, Attention.sdpa, wanted)
    assert plain == AttentionChoice(Attention.sdpa)
    padded = settle_attention(base, Layout.padded, Attention.flash, wanted)
    assert padded.attention is Attention.sdpa
    assert "padded rows" in (padded.reason or "")
    assert [line.levelno for line in caplog.records] == [level]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("softcap", [None, 50.0])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES[:2], SHAPES[3], (14, 2, 64), (32, 8, 64)], ids=str)
def test_the_true_kernel_gives_what_pytorch_gives(
    shape: tuple[int, int, int], dtype: torch.dtype, softcap: float | None
) -> None:
    pytest.importorskip("flash_attn")
    on_cuda = replace(heads(shape, dtype, softcap), device=torch.device("cuda"))
    assert heads_obstacle(on_cuda) is None
    first, second = varlen_check._off(on_cuda), varlen_check._off(on_cuda)
    assert first == second
