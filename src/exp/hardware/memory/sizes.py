"""Parameters of a decoder and of an adapter on it, counted from the transformers config alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exp.errors import ModelError

ALL_LINEAR = "all-linear"

GEMMA3 = ("gemma3_text",)
BIASED_QKV = ("qwen2",)
NORMED_HEADS = ("qwen3", *GEMMA3)
KNOWN = ("llama", "mistral", "qwen2", "qwen3", *GEMMA3)
"""Kinds of models whose code the formulas follow. Others keep other tensors."""

NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of every decoder layer, by the last word of its name."""

    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The shape of a dense decoder.

    Attributes:
        queries: Width of all query heads together.
        keys: Width of all key heads together; values have the same.
        norms: Norms of a layer over the hidden width: two, or four in later Gemmas.
        head_norms: Whether queries and keys are normed per head.
        rotations: Kinds of rotary embeddings, each with tables of its own.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    norms: int
    head_norms: bool
    rotations: int
    linears: tuple[Linear, ...]

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embeddings; an untied head has as many."""
        return self.vocabulary * self.hidden

    @property
    def linear_weights(self) -> int:
        """Weights of all linear layers but the head, the ones that quantisation shrinks."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def vectors(self) -> int:
        """Biases and the weights of norms."""
        biases = sum(linear.outputs for linear in self.linears if linear.bias)
        norms = self.norms * self.hidden + 2 * self.head_dim * self.head_norms
        return self.layers * (biases + norms) + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; tied weights count once."""
        return self.embedding * (1 if self.tied else 2) + self.linear_weights + self.vectors

    def targeted(self, target_modules: Sequence[str]) -> tuple[Linear, ...]:
        """The linear layers that get an adapter."""
        if ALL_LINEAR in target_modules:
            return self.linears
        return tuple(linear for linear in self.linears if linear.name in target_modules)


def read_sizes(architecture: Mapping[str, Any], model: str) -> ModelSizes:
    """Read the sizes off a transformers config.

    Args:
        architecture: `model.architecture`, or the content of a config.json.
        model: What the model is called, for the error.

    Raises:
        ModelError: The config does not say what a dense decoder needs.
    """
    given = dict(architecture.get("text_config") or architecture)
    missing = [name for name in NEEDED if not given.get(name)]
    if missing:
        raise ModelError(
            f"model={model} has no {', '.join(missing)} in its architecture, so its memory cannot "
            "be planned.",
            where="model.architecture",
            fix="give the transformers config under model.architecture, or model.path=<folder>",
        )
    kind = str(given.get("model_type", ""))
    if kind not in KNOWN:
        raise ModelError(
            f"model={model} is of the kind {kind or 'unknown'}; the memory plan knows "
            f"{', '.join(KNOWN)}.",
            where="model.architecture.model_type",
            fix="exp plan model=qwen3_0_6b",
        )
    hidden, intermediate = given["hidden_size"], given["intermediate_size"]
    heads = given["num_attention_heads"]
    key_heads = given.get("num_key_value_heads") or heads
    head_dim = given.get("head_dim") or hidden // heads
    tied = given.get("tie_word_embeddings")
    attention_bias = bool(given.get("attention_bias"))
    mlp_bias = bool(given.get("mlp_bias"))
    queries, keys = heads * head_dim, key_heads * head_dim
    qkv_bias = attention_bias or kind in BIASED_QKV
    return ModelSizes(
        model_type=kind,
        layers=given["num_hidden_layers"],
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        vocabulary=given["vocab_size"],
        tied=kind in GEMMA3 if tied is None else bool(tied),
        norms=4 if kind in GEMMA3 else 2,
        head_norms=kind in NORMED_HEADS,
        rotations=2 if kind in GEMMA3 else 1,
        linears=(
            Linear("q_proj", hidden, queries, qkv_bias),
            Linear("k_proj", hidden, keys, qkv_bias),
            Linear("v_proj", hidden, keys, qkv_bias),
            Linear("o_proj", queries, hidden, attention_bias),
            Linear("gate_proj", hidden, intermediate, mlp_bias),
            Linear("up_proj", hidden, intermediate, mlp_bias),
            Linear("down_proj", intermediate, hidden, mlp_bias),
        ),
    )


def adapter_parameters(linears: Sequence[Linear], rank: int) -> int:
    """Parameters of the adapter on one decoder layer."""
    return sum(rank * (linear.inputs + linear.outputs) for linear in linears)
