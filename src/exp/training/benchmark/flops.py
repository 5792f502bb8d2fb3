"""Useful floating-point operations: what the leanest exact computation of a step needs.

That is: the shared prefix once per micro-batch, every other token once, logits at label rows only,
no gradient for frozen weights, causal attention without its masked half. All rungs get the same
count, so useful FLOP/s compare as examples/s do, and their share of the GEMM peak says how much is
left to gain.

Per token of the body, with N parameters in its frozen linear layers and n in its adapters:

    frozen linear layers   2N forward + 2N for the gradient of the input           = 4N
    adapters               2n forward + 2n for the input + 2n for the weights      = 6n

per visible pair of tokens and layer, with heads x head_dim = w: 4w forward + 8w backward = 12w, and
per label row, with a head of H parameters: 2H forward + 2H backward = 4H. Norms, activations and
rotations are not counted. The gradient of the first layer's input is, although nobody needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from exp.data.plan import Step
from exp.data.tokens import TokenStore
from exp.model.base import head_of


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What the count depends on.

    Attributes:
        frozen: Parameters in the linear layers of the body.
        adapters: Parameters of the adapters.
        head: Parameters of the output projection.
        attention: heads x head_dim, summed over all layers.
    """

    frozen: int
    adapters: int
    head: int
    attention: int


def model_size(model: PeftModel) -> ModelSize:
    """Read the sizes off a dense decoder with an adapter."""
    base = model.get_base_model()
    head = head_of(base).projection  # type: ignore[arg-type]
    in_head = set(head.modules())
    frozen = adapters = 0
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear) and module not in in_head:
            # Quantised weights have fewer elements than the product computes with.
            num_weights = module.in_features * module.out_features
            if "lora_" in name:
                adapters += num_weights
            else:
                frozen += num_weights
    config = base.config.get_text_config()  # type: ignore[operator,union-attr]
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = config.num_hidden_layers * heads * head_dim
    num_head = head.weight.numel()  # type: ignore[operator]
    return ModelSize(frozen, adapters, num_head, attention)


def useful_flops(size: ModelSize, store: TokenStore, steps: Sequence[Step]) -> float:
    """Count the operations of some steps whose micro-batches share the store's head."""
    return count_flops(size, len(store.head_ids), store.lengths, steps)


def count_flops(
    size: ModelSize, prefix: int, lengths: Sequence[int] | NDArray[np.int64], steps: Sequence[Step]
) -> float:
    """Count the operations of some steps.

    Args:
        size: The model's.
        prefix: Tokens that all examples share.
        lengths: Tokens of each example, prefix included.
        steps: Their micro-batches hold examples by their place in `lengths`.
    """
    tokens = pairs = labels = 0
    for step in steps:
        labels += step.num_labels
        for members in step.micro_batches:
            own = [int(lengths[row]) - prefix for row in members]
            tokens += prefix + sum(own)
            pairs += prefix * (prefix + 1) // 2
            pairs += sum(length * prefix + length * (length + 1) // 2 for length in own)
    return (
        (4.0 * size.frozen + 6.0 * size.adapters) * tokens
        + 12.0 * size.attention * pairs
        + 4.0 * size.head * labels
    )
