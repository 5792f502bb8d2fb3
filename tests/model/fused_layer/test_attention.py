from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from exp.data.batch import Segments
from exp.model.fused_layer.attention import (
    Heads,
    Stream,
    Streams,
    attend,
    attend_backward,
    rotate_,
)

HEADS = Heads(queries=4, keys=2, size=8, scaling=0.7)

CUTS = [(20, [1, 9, 4]), (0, [5, 1, 8]), (16, [3, 3]), (0, [7])]


def angles(tokens: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine as transformers lays them out, (1, tokens, head size)."""
    half = torch.randn(1, tokens, HEADS.size // 2, dtype=torch.float64)
    turns = torch.cat([half, half], dim=-1)
    return turns.cos(), turns.sin()


def stream_of(segments: Segments, tokens: int) -> Stream:
    return Streams()(segments, angles(tokens), HEADS)


def by_kind(joint: Tensor) -> list[Tensor]:
    """Queries, keys and values, each (1, heads, tokens, head size)."""
    sizes = [HEADS.queries, HEADS.keys, HEADS.keys]
    return [each.transpose(0, 1).unsqueeze(0) for each in joint.split(sizes, dim=1)]


@pytest.mark.parametrize(("prefix", "suffixes"), CUTS)
@pytest.mark.parametrize("filling", [0, 3])
def test_it_attends_as_a_full_mask_would_and_so_does_its_gradient(
    prefix: int, suffixes: list[int], filling: int, plain_stream: Any
) -> None:
    tokens = prefix + sum(suffixes)
    joint = torch.randn(tokens, HEADS.joint, HEADS.size, dtype=torch.float64, requires_grad=True)
    visible = plain_stream.visible(prefix, suffixes)
    expected = plain_stream.attend(by_kind(joint), visible, HEADS.scaling, None)[0].flatten(1)
    slope = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, joint, slope)

    def filled(rows: Tensor) -> Tensor:
        return torch.cat([rows, torch.randn(filling, *rows.shape[1:], dtype=rows.dtype)])

    segments = plain_stream.segments(prefix, suffixes)
    stream = stream_of(segments, tokens + filling)
    found, operands = attend(filled(joint.detach()), HEADS, stream)
    gradient = attend_backward(filled(slope), operands, HEADS, stream)
    torch.testing.assert_close(found[:tokens], expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient[:tokens], wanted, rtol=1e-9, atol=1e-12)
    assert not found[tokens:].any()
    assert not gradient[tokens:].any()


def test_queries_and_keys_are_turned_as_in_transformers_and_gradients_back(
    plain_stream: Any,
) -> None:
    segments = plain_stream.segments(0, [9])
    cos, sin = angles(9)
    stream = Streams()(segments, (cos, sin), HEADS)
    joint = torch.randn(9, HEADS.joint, HEADS.size, dtype=torch.float64, requires_grad=True)
    query, key, value = by_kind(joint)
    turned = torch.cat([*apply_rotary_pos_emb(query, key, cos, sin), value], dim=1)
    expected = turned[0].transpose(0, 1)
    slope = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, joint, slope)

    found, gradient = joint.detach().clone(), slope.clone()
    rotate_(found, stream, HEADS)
    rotate_(gradient, stream, HEADS, back=True)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(gradient, wanted)


def test_a_stream_is_laid_out_once_for_all_layers_and_anew_for_the_next(
    plain_stream: Any,
) -> None:
    streams, segments, positions = Streams(), plain_stream.segments(0, [5, 3]), angles(8)
    first = streams(segments, positions, HEADS)
    assert streams(segments, positions, HEADS) is first
    other = plain_stream.segments(0, [2, 6])
    assert streams(other, angles(8), HEADS).longest == 6
