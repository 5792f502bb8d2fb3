"""Tiny random causal LMs of every served architecture, in fp32, with two layers each."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from exp.config.schema import Layout, LossOn
from exp.data.batch import Segments, collate
from exp.records import Rendered

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

WINDOW = 64

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": False},
    # One sliding and one full layer, with rotary embeddings of different bases.
    "gemma3": {
        "model_type": "gemma3_text",
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
    },
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW, "tie_word_embeddings": False},
    # Attention scores and final logits are squashed.
    "gemma2": {
        "model_type": "gemma2",
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    # Embeddings, residuals, attention and logits are scaled by constants of the config.
    "granite": {
        "model_type": "granite",
        "logits_scaling": 4.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    },
}


def build_tiny(name: str, **changes: Any) -> PreTrainedModel:
    """Build one with weights large enough for attention to be far from uniform."""
    config = AutoConfig.for_model(**SIZES | ARCHITECTURES[name] | changes)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    return build_tiny


class PlainStream:
    """A stream as the collator cuts it, and attention over it with a full mask, spelled out."""

    @staticmethod
    def segments(prefix: int, suffixes: list[int]) -> Segments:
        rendered = [
            Rendered((*range(prefix), 1000 + index), tuple(range(length - 1)))
            for index, length in enumerate(suffixes)
        ]
        layout = Layout.shared_prefix if prefix else Layout.packed
        segments = collate(rendered, ["a"] * len(rendered), layout, LossOn.text).segments
        assert segments is not None
        assert segments.prefix_length == prefix
        return segments

    @staticmethod
    def visible(prefix: int, suffixes: list[int]) -> Tensor:
        """(tokens, tokens) True where token i may see token j."""
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

    @staticmethod
    def attend(
        states: list[Tensor], visible: Tensor, scaling: float, softcap: float | None
    ) -> Tensor:
        """Softmax attention of (query, key, value) over all tokens."""
        query, key, value = states
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scores = torch.einsum("bhid,bhjd->bhij", query, key) * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1)
        return torch.einsum("bhij,bhjd->bihd", weights, value)


@pytest.fixture
def plain_stream() -> type[PlainStream]:
    return PlainStream
