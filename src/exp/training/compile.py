"""torch.compile of the decoder while it trains: in place, so that no parameter changes its name.

Sizes are symbolic from the start, so that batches of other shapes do not compile anew. Whatever
decodes (validation, evaluation) stays eager: its shapes change with every token.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from exp.config.schema import Compile
from exp.model.base import body_of


@contextmanager
def compiled(model: PreTrainedModel, how: Compile, backend: str = "inductor") -> Iterator[None]:
    """Within the block, run the decoder compiled: each layer by itself, or the whole body.

    Compiling takes from seconds to minutes, once per run. On a CPU a short run does not earn that
    back, hence auto compiles only where a profile suggests it.

    Args:
        model: The base with its adapter.
        how: What is compiled; nothing with `off`.
        backend: The compiler, by torch's name.
    """
    modules = _modules(model, how)
    for module in modules:
        # Unlike torch.compile(module), this wraps nothing: names stay what adapter files hold.
        module.compile(dynamic=True, backend=backend)
    try:
        yield
    finally:
        for module in modules:
            module._compiled_call_impl = None


def eagerly(validate: Callable[[], Mapping[str, float]]) -> Callable[[], Mapping[str, float]]:
    """Let a function run compiled modules eagerly."""

    def uncompiled() -> Mapping[str, float]:
        with torch.compiler.set_stance("force_eager"):
            return validate()

    return uncompiled


def _modules(model: PreTrainedModel, how: Compile) -> list[nn.Module]:
    match how:
        case Compile.off:
            return []
        case Compile.layers:
            body = body_of(model)
            return [m for m in body.modules() if isinstance(m, GradientCheckpointingLayer)]
        case Compile.full:
            return [body_of(model)]
        case Compile.auto:
            raise ValueError("auto is settled with the hardware, before there is a model")
