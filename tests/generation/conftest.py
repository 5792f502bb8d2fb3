"""Tiny causal LMs that decode in microseconds, and a byte-level tokenizer that knows JSON."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": False},
    "gemma3": {
        "model_type": "gemma3_text",
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 128,
        "query_pre_attn_scalar": 8,
    },
    # Attention scores and final logits are squashed.
    "gemma2": {
        "model_type": "gemma2",
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 128,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
}


def tiny_model(kind: str, **changes: Any) -> PreTrainedModel:
    """Build one with weights large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**SIZES | KINDS[kind] | changes), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def build_model() -> Callable[..., PreTrainedModel]:
    return tiny_model


@pytest.fixture(scope="session")
def json_tokenizer() -> Tokenizer:
    """All bytes, a few merges that cross JSON's punctuation, and an end token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=276,
        special_tokens=[AddedToken("<end>", special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ['{"name":"one","sizes":[1,2.5],"kind":"big"}', '{"name":"two","kind":"small"}']
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
