from itertools import pairwise

import pytest
import torch
from torch import Tensor

from exp.config.schema import Layout, LossOn
from exp.data.batch import Segments, collate
from exp.model import attention
from exp.model.attention import stream_attention
from exp.records import Rendered

HEADS, KEY_HEADS, HEAD_DIM = 4, 2, 8


def make_segments(prefix: int, suffixes: list[int]) -> Segments:
    """Let the collator cut a stream of that shape."""
    shared = tuple(range(prefix))
    rendered = [
        Rendered((*shared, 1000 + index), tuple(range(length - 1)))
        for index, length in enumerate(suffixes)
    ]
    layout = Layout.shared_prefix if prefix else Layout.packed
    segments = collate(rendered, ["a"] * len(rendered), layout, LossOn.text).segments
    assert segments is not None
    assert segments.prefix_length == prefix
    return segments


def visible_pairs(prefix: int, suffixes: list[int]) -> Tensor:
    """(tokens, tokens) True where token i of a stream may see token j, spelled out."""
    ends = [prefix]
    for length in suffixes:
        ends.append(ends[-1] + length)
    visible = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for i in range(prefix):
        visible[i, : i + 1] = True
    for start, end in pairwise(ends):
        for i in range(start, end):
            visible[i, :prefix] = True
            visible[i, start : i + 1] = True
    return visible


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Softmax attention over all tokens with a full mask."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("bhid,bhjd->bhij", query, key) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1)
    return torch.einsum("bhij,bhjd->bihd", weights, value)


def random_states(tokens: int) -> list[Tensor]:
    shapes = [(1, HEADS, tokens, HEAD_DIM), *[(1, KEY_HEADS, tokens, HEAD_DIM)] * 2]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("prefix", "suffixes"), [(20, [1, 9, 4]), (0, [5, 1, 8]), (16, [3, 3]), (0, [7])]
)
def test_a_stream_attends_as_a_full_mask_would(
    prefix: int,
    suffixes: list[int],
    fused: bool,
    softcap: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fused:
        monkeypatch.setattr(attention, "MATERIALISED_SCORES_BYTES", -1)
    tokens = prefix + sum(suffixes)
    states = random_states(tokens)
    segments = make_segments(prefix, suffixes)
    module = torch.nn.Module()
    out, weights = stream_attention(
        module, *states, None, scaling=0.7, segments=segments, softcap=softcap
    )
    expected = plain_attention(*states, visible_pairs(prefix, suffixes), 0.7, softcap)
    slope = torch.randn_like(expected)
    gradients = torch.autograd.grad(out, states, slope)
    expected_gradients = torch.autograd.grad(expected, states, slope)
    assert weights is None
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-12)


def test_a_mask_that_is_off_by_one_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention,
        "_visible",
        lambda length, offset, device: torch.ones(length, offset + length).tril(offset + 1).bool(),
    )
    with pytest.raises(AssertionError, match="not close"):
        test_a_stream_attends_as_a_full_mask_would(20, [1, 9, 4], False, None, monkeypatch)


def test_dropout_drops_weights_in_both_parts() -> None:
    states = random_states(30)
    segments = make_segments(20, [4, 6])
    module = torch.nn.Module()
    plain, _ = stream_attention(module, *states, None, scaling=1.0, segments=segments)
    dropped, _ = stream_attention(
        module, *states, None, scaling=1.0, segments=segments, dropout=0.5
    )
    assert (plain != dropped)[0, 1:20].any()
    assert (plain != dropped)[0, 20:].any()


def test_an_argument_that_would_change_the_scores_is_refused() -> None:
    states = random_states(10)
    with pytest.raises(TypeError, match="s_aux"):
        stream_attention(
            torch.nn.Module(),
            *states,
            None,
            scaling=1.0,
            segments=make_segments(0, [10]),
            s_aux=torch.zeros(HEADS),
        )
