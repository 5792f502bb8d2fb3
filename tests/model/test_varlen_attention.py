"""Attention over a stream by one call of a kernel for sequences of differing lengths.

The kernel itself is for CUDA; a plain one stands in for it, sequence by sequence.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import Attention, Compile, Layout, LoraConfig, LossOn
from exp.data.batch import Segments, collate
from exp.model import forward, varlen_attention
from exp.model.forward import enable_checkpointing, prepare_for_layout
from exp.model.lora import attach_lora
from exp.model.varlen_attention import VARLEN_STREAM, VarlenSegments, varlen_segments
from exp.records import Rendered
from exp.training.compile import compiled
from exp.training.loss import batch_loss

Tiny = Callable[..., PreTrainedModel]
Kernel = Callable[..., Tensor]

HEADS, KEY_HEADS, HEAD_DIM = 4, 2, 8
STREAMS = (Layout.shared_prefix, Layout.packed)
CUTS = [(20, [1, 9, 4]), (0, [5, 1, 8]), (16, [3, 3]), (0, [7]), (30, [2] * 9), (17, [1, 1])]
EXAMPLES = [
    Rendered((*range(20), *range(20 + i, 20 + 2 * i)), tuple(range(40 + i, 43 + 2 * i)))
    for i in range(5)
]


def random_states(tokens: int) -> list[Tensor]:
    """Laid out as a model's projections leave them: the heads of a token side by side."""
    shapes = [(1, tokens, HEADS, HEAD_DIM), *[(1, tokens, KEY_HEADS, HEAD_DIM)] * 2]
    drawn = [torch.randn(shape, dtype=torch.float64).transpose(1, 2) for shape in shapes]
    return [each.requires_grad_() for each in drawn]


def assert_as_a_full_mask(
    plain_stream: Any, prefix: int, suffixes: list[int], softcap: float | None
) -> None:
    states = random_states(prefix + sum(suffixes))
    segments = varlen_segments(plain_stream.segments(prefix, suffixes))
    out, weights = varlen_attention.varlen_attention(
        torch.nn.Module(), *states, None, scaling=0.7, segments=segments, softcap=softcap
    )
    expected = plain_stream.attend(states, plain_stream.visible(prefix, suffixes), 0.7, softcap)
    slope = torch.randn_like(expected)
    assert weights is None
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(out, states, slope),
        torch.autograd.grad(expected, states, slope),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(("prefix", "suffixes"), CUTS)
def test_one_call_attends_as_a_full_mask_would(
    prefix: int,
    suffixes: list[int],
    softcap: float | None,
    plain_flash_attn: Kernel,
    plain_stream: Any,
) -> None:
    assert_as_a_full_mask(plain_stream, prefix, suffixes, softcap)


@pytest.mark.parametrize("fault", ["last key first", "ends off", "copies in the wrong order"])
def test_a_wrong_layout_of_keys_would_be_seen(
    fault: str, plain_flash_attn: Kernel, plain_stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = varlen_segments(plain_stream.segments(20, [1, 9, 4]))
    assert right.keys is not None
    tokens, ends = right.keys.tokens.clone(), right.key_ends.clone()
    match fault:
        case "last key first":
            tokens[-4:] = tokens[-4:].roll(1)
        case "ends off":
            ends[2] -= 1
        case _:
            tokens[20:41] = tokens[20:41].roll(1)
    keys = varlen_attention.Keys(tokens, right.keys.prefix, right.keys.suffixes)
    wrong = VarlenSegments(right.query_ends, ends, keys, right.longest_query, 40)
    monkeypatch.setitem(globals(), "varlen_segments", lambda segments: wrong)
    with pytest.raises(AssertionError, match="not close"):
        assert_as_a_full_mask(plain_stream, 20, [1, 9, 4], None)


@pytest.mark.parametrize(("prefix", "suffixes"), CUTS)
def test_queries_and_keys_are_counted_to_the_last(
    prefix: int, suffixes: list[int], plain_stream: Any
) -> None:
    segments = varlen_segments(plain_stream.segments(prefix, suffixes))
    own = [prefix, *suffixes] if prefix else suffixes
    seen = [prefix, *(prefix + length for length in suffixes)] if prefix else suffixes
    assert segments.query_ends.diff().tolist() == own
    assert segments.key_ends.diff().tolist() == seen
    assert (segments.longest_query, segments.longest_key) == (max(own), max(seen))
    assert segments.query_ends.dtype is segments.key_ends.dtype is torch.int32
    if not prefix:
        assert segments.keys is None
        return
    assert segments.keys is not None
    start, expected = prefix, list(range(prefix))
    for length in suffixes:
        expected += [*range(prefix), *range(start, start + length)]
        start += length
    assert segments.keys.tokens.tolist() == expected


def test_the_copies_of_a_prefix_are_added_up_in_fp32_and_rounded_once(plain_stream: Any) -> None:
    segments = varlen_segments(plain_stream.segments(16, [2] * 300))
    assert segments.keys is not None
    states = torch.zeros(616, 2, 8, dtype=torch.bfloat16, requires_grad=True)
    gathered = varlen_attention._gathered(states, segments.keys)
    slope = torch.randn_like(gathered)
    (gradient,) = torch.autograd.grad(gathered, states, slope)
    exact = torch.zeros(616, 2, 8).index_add(0, segments.keys.tokens, slope.float())
    torch.testing.assert_close(gradient, exact.bfloat16(), rtol=2**-8, atol=1e-5)
    one_by_one = sum(slope[segments.keys.prefix].unbind(), torch.zeros(()).bfloat16())
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(one_by_one, exact[:16].bfloat16(), rtol=2**-8, atol=1e-5)


def test_what_the_kernel_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, plain_flash_attn: Kernel, plain_stream: Any
) -> None:
    import flash_attn

    asked: dict[str, Any] = {}

    def spy(*args: Any, **options: Any) -> Tensor:
        asked.update(options)
        return plain_flash_attn(*args, **options)

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", spy)
    varlen_attention.varlen_attention(
        torch.nn.Module(),
        *random_states(24),
        None,
        scaling=0.3,
        segments=varlen_segments(plain_stream.segments(20, [1, 3])),
        dropout=0.25,
        sliding_window=4,
    )
    assert asked == {
        "dropout_p": 0.25,
        "softmax_scale": 0.3,
        "causal": True,
        "softcap": 0.0,
        "deterministic": True,
    }


def test_an_argument_that_would_change_the_scores_is_refused(
    plain_flash_attn: Kernel, plain_stream: Any
) -> None:
    with pytest.raises(TypeError, match="s_aux"):
        varlen_attention.varlen_attention(
            torch.nn.Module(),
            *random_states(10),
            None,
            scaling=1.0,
            segments=varlen_segments(plain_stream.segments(0, [10])),
            s_aux=torch.zeros(HEADS),
        )


def loss_and_gradients(
    base: PreTrainedModel,
    layout: Layout,
    attention: Attention = Attention.sdpa,
    *,
    loss: LossOn = LossOn.completion,
    checkpointing: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    model = attach_lora(base, LoraConfig(r=4, target_modules=["all-linear"]), seed=0)
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.1
    prepare_for_layout(base, layout, attention)
    if checkpointing:
        enable_checkpointing(base)
    model.train()
    batch = collate(EXAMPLES, [str(i) for i in range(len(EXAMPLES))], layout, loss)
    total = batch_loss(base, batch)
    total.backward()
    return total.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def largest_error(
    found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]
) -> float:
    """Of the loss, and of each gradient as a whole: its error's norm against its own."""
    assert found[1].keys() == expected[1].keys()
    pairs = [(found[0], expected[0]), *((found[1][n], expected[1][n]) for n in expected[1])]
    return max(float((each - right).norm() / right.norm()) for each, right in pairs)


@pytest.mark.parametrize("loss", LossOn, ids=lambda loss: loss.name)
@pytest.mark.parametrize("layout", STREAMS, ids=lambda layout: layout.name)
@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "gemma3",
        *(pytest.param(n, marks=pytest.mark.thorough) for n in ("qwen3", "gemma2", "granite")),
    ],
)
def test_loss_and_gradients_equal_those_of_padded_rows(
    tiny: Tiny, name: str, layout: Layout, loss: LossOn, plain_flash_attn: Kernel
) -> None:
    expected = loss_and_gradients(tiny(name), Layout.padded, loss=loss)
    assert len(expected[1]) == 2 * 2 * 7  # A and B of seven linear layers in two blocks
    found = loss_and_gradients(tiny(name), layout, Attention.flash, loss=loss)
    assert largest_error(found, expected) <= 1e-5


def test_a_kernel_that_aligns_its_mask_with_the_first_key_would_be_seen(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, plain_flash_attn: Kernel
) -> None:
    import flash_attn

    def top_left(q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        query_ends, key_ends = args[0].tolist(), args[1].tolist()
        outputs = []
        for (first, last), (start, end) in zip(
            pairwise(query_ends), pairwise(key_ends), strict=True
        ):
            length = min(last - first, end - start)
            ends = torch.tensor([0, length], dtype=torch.int32)
            own = (q[first:last], k[start : start + length], v[start : start + length])
            outputs.append(plain_flash_attn(*own, ends, ends, length, length, **options))
        return torch.cat(outputs)

    expected = loss_and_gradients(tiny("llama"), Layout.padded)
    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", top_left)
    # Without a prefix the two alignments are one.
    packed = loss_and_gradients(tiny("llama"), Layout.packed, Attention.flash)
    assert largest_error(packed, expected) <= 1e-5
    shared = loss_and_gradients(tiny("llama"), Layout.shared_prefix, Attention.flash)
    assert largest_error(shared, expected) > 0.01


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_sequences_are_laid_out_once_per_forward(
    tiny: Tiny, checkpointing: bool, plain_flash_attn: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(segments: Segments) -> VarlenSegments:
        made.append(1)
        return varlen_segments(segments)

    monkeypatch.setattr(forward, "varlen_segments", counted)
    loss_and_gradients(
        tiny("llama"), Layout.shared_prefix, Attention.flash, checkpointing=checkpointing
    )
    assert made == [1]


def test_recomputed_layers_give_the_same_gradients(tiny: Tiny, plain_flash_attn: Kernel) -> None:
    kept = loss_and_gradients(tiny("qwen3"), Layout.shared_prefix, Attention.flash)
    again = loss_and_gradients(
        tiny("qwen3"), Layout.shared_prefix, Attention.flash, checkpointing=True
    )
    assert largest_error(again, kept) == 0


@pytest.mark.parametrize(
    ("layout", "attention", "expected"),
    [
        (Layout.padded, Attention.flash, "sdpa"),
        (Layout.packed, Attention.flash, VARLEN_STREAM),
        (Layout.shared_prefix, Attention.flash, VARLEN_STREAM),
        (Layout.shared_prefix, Attention.sdpa, "exp_stream"),
    ],
)
def test_the_layout_and_what_was_settled_decide_the_function(
    tiny: Tiny, layout: Layout, attention: Attention, expected: str
) -> None:
    base = tiny("llama")
    prepare_for_layout(base, layout, attention)
    assert base.config._attn_implementation == expected


def test_tensors_follow_to_a_device(plain_stream: Any) -> None:
    there = varlen_segments(plain_stream.segments(20, [1, 3])).to("meta", non_blocking=True)
    assert there.keys is not None
    tensors = (there.query_ends, there.key_ends, there.keys.tokens, there.keys.prefix)
    assert {each.device.type for each in (*tensors, there.keys.suffixes)} == {"meta"}
    assert varlen_segments(plain_stream.segments(0, [5])).to("meta").keys is None


def opaque(kernel: Kernel) -> Kernel:
    """Hide a kernel from the compiler, as FlashAttention's are: operators with a known shape."""

    @torch.library.custom_op("exp_tests::varlen_forward", mutates_args=())
    def forward(
        q: Tensor, k: Tensor, v: Tensor, query_ends: Tensor, key_ends: Tensor, scale: float
    ) -> Tensor:
        most = (int(query_ends.diff().max()), int(key_ends.diff().max()))
        return kernel(q, k, v, query_ends, key_ends, *most, softmax_scale=scale, causal=True)

    @torch.library.custom_op("exp_tests::varlen_backward", mutates_args=())
    def backward(
        slope: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_ends: Tensor,
        key_ends: Tensor,
        scale: float,
    ) -> list[Tensor]:
        shape = (k.shape[1], q.shape[1] // k.shape[1])
        parts = []
        bounds = zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True)
        for (first, last), (start, end) in bounds:
            own, up = q[first:last], slope[first:last]
            keys, values = (each[start:end].repeat_interleave(shape[1], 1) for each in (k, v))
            seen = torch.ones(last - first, end - start).tril(end - start - last + first).bool()
            scores = torch.einsum("ihd,jhd->hij", own, keys) * scale
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            of_weights = torch.einsum("ihd,jhd->hij", up, values)
            mean = (of_weights * weights).sum(-1, keepdim=True)
            of_scores = weights * (of_weights - mean) * scale
            of_keys = torch.einsum("hij,ihd->jhd", of_scores, own)
            of_values = torch.einsum("hij,ihd->jhd", weights, up)
            grouped = [each.unflatten(1, shape).sum(2) for each in (of_keys, of_values)]
            parts.append((torch.einsum("hij,jhd->ihd", of_scores, keys), *grouped))
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    forward.register_fake(lambda q, k, v, *_: torch.empty_like(q))
    backward.register_fake(
        lambda slope, q, k, v, *_: [torch.empty_like(each).contiguous() for each in (q, k, v)]
    )

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, queries: Any, keys: Any, scale: Any) -> Any:
            ctx.save_for_backward(q, k, v, queries, keys)
            ctx.scale = scale
            return forward(q, k, v, queries, keys, scale)

        @staticmethod
        def backward(ctx: Any, slope: Any) -> Any:
            return *backward(slope, *ctx.saved_tensors, ctx.scale), None, None, None

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        query_ends: Tensor,
        key_ends: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float,
        **_: Any,
    ) -> Any:
        return Function.apply(q, k, v, query_ends, key_ends, softmax_scale)

    return flash_attn_varlen_func


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_decoder_gives_the_same_gradients_in_one_graph(
    tiny: Tiny, plain_flash_attn: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one test, since the compiler keeps the first module of a name that it has imported."""
    import flash_attn

    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", opaque(plain_flash_attn))
    counters = torch._dynamo.utils.counters
    for layout, how in zip(STREAMS, (Compile.layers, Compile.full), strict=True):
        expected = loss_and_gradients(tiny("llama"), layout, Attention.flash)
        torch._dynamo.reset()
        counters.clear()
        base = tiny("llama")
        with compiled(base, how, "aot_eager"):
            found = loss_and_gradients(base, layout, Attention.flash)
        assert largest_error(found, expected) <= 1e-5
        assert counters["stats"]["unique_graphs"] > 0
        assert not counters["graph_break"]
