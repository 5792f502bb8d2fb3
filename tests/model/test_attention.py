from typing import Any

import pytest
import torch
from torch import Tensor

from exp.model import attention
from exp.model.attention import stream_attention

HEADS, KEY_HEADS, HEAD_DIM = 4, 2, 8


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
    plain_stream: Any,
) -> None:
    if fused:
        monkeypatch.setattr(attention, "MATERIALISED_SCORES_BYTES", -1)
    tokens = prefix + sum(suffixes)
    states = random_states(tokens)
    segments = plain_stream.segments(prefix, suffixes)
    module = torch.nn.Module()
    out, weights = stream_attention(
        module, *states, None, scaling=0.7, segments=segments, softcap=softcap
    )
    expected = plain_stream.attend(states, plain_stream.visible(prefix, suffixes), 0.7, softcap)
    slope = torch.randn_like(expected)
    gradients = torch.autograd.grad(out, states, slope)
    expected_gradients = torch.autograd.grad(expected, states, slope)
    assert weights is None
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-12)


def test_a_mask_that_is_off_by_one_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, plain_stream: Any
) -> None:
    monkeypatch.setattr(
        attention,
        "_visible",
        lambda length, offset, device: torch.ones(length, offset + length).tril(offset + 1).bool(),
    )
    with pytest.raises(AssertionError, match="not close"):
        test_a_stream_attends_as_a_full_mask_would(
            20, [1, 9, 4], False, None, monkeypatch, plain_stream
        )


def test_dropout_drops_weights_in_both_parts(plain_stream: Any) -> None:
    states = random_states(30)
    segments = plain_stream.segments(20, [4, 6])
    module = torch.nn.Module()
    plain, _ = stream_attention(module, *states, None, scaling=1.0, segments=segments)
    dropped, _ = stream_attention(
        module, *states, None, scaling=1.0, segments=segments, dropout=0.5
    )
    assert (plain != dropped)[0, 1:20].any()
    assert (plain != dropped)[0, 20:].any()


def test_an_argument_that_would_change_the_scores_is_refused(plain_stream: Any) -> None:
    states = random_states(10)
    with pytest.raises(TypeError, match="s_aux"):
        stream_attention(
            torch.nn.Module(),
            *states,
            None,
            scaling=1.0,
            segments=plain_stream.segments(0, [10]),
            s_aux=torch.zeros(HEADS),
        )
