"""Compute a model of 16-bit weights in fp32 for a while, without a copy of its weights.

Rounding in 16 bits grows over the layers until it hides what a comparison is to find.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from exp.model.quantization import decoding_in_any_type

NARROW = {torch.bfloat16, torch.float16}


@contextmanager
def computing_in_fp32(model: nn.Module) -> Iterator[None]:
    """Within the block, a forward that starts from token ids computes in fp32, TF32 excluded.

    A weight is widened for the one call that reads it. Kernels of quantised checkpoints that take
    16 bits alone raise what they raise.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with decoding_in_any_type(model), _Widening():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Widening(TorchFunctionMode):
    """Makes embeddings fp32, and then every 16-bit tensor that meets an fp32 one in a call.

    Sums would widen it by themselves; products refuse operands of two types.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.embedding:
            return func(*args, **kwargs).float()
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        dtypes = {tensor.dtype for tensor in tensors}
        if torch.float32 in dtypes and dtypes & NARROW and not _writes(func, kwargs):
            args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
        return func(*args, **kwargs)


def _writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a call writes into an argument, of which a wider copy would get the result."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or "out" in kwargs


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in NARROW else tensor
