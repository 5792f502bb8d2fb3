"""The state of an optimizer as named tensors and plain JSON, and back, bit for bit."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from exp.errors import CheckpointError
from exp.records import Json

if TYPE_CHECKING:
    from torch import Tensor


def optimizer_to_tensors(state_dict: Mapping[str, Any]) -> "tuple[dict[str, Tensor], Json]":
    """Take a nested state apart into its tensors and its structure.

    Tensors are called by their path (`state.0.exp_avg`). In the structure every container is a
    tagged object, because JSON alone loses integer keys, tuples and infinities.

    Args:
        state_dict: Mappings, lists, tuples, tensors, numbers, strings, booleans and None.

    Raises:
        TypeError: Something else is in it.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _take_apart(state_dict, "", tensors, set())


def tensors_to_optimizer(tensors: "Mapping[str, Tensor]", structure: Json) -> dict[str, Any]:
    """Put together what `optimizer_to_tensors` took apart.

    Raises:
        CheckpointError: The tensors are not exactly those that the structure names.
    """
    rest = dict(tensors)
    try:
        state = _put_together(structure, rest)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The optimizer state does not fit its tensors: {error}.") from error
    if rest or not isinstance(state, dict):
        raise CheckpointError(
            f"The optimizer state has tensors that nothing refers to: {', '.join(rest)}."
        )
    return state


def _take_apart(value: Any, path: str, tensors: "dict[str, Tensor]", addresses: set[int]) -> Json:
    from torch import Tensor

    if isinstance(value, Tensor):
        if path in tensors:
            raise TypeError(f"two tensors are called {path}")
        # bitsandbytes shares its code books among parameters; a file holds each tensor by itself.
        shared = value.numel() and value.data_ptr() in addresses
        tensors[path] = value.clone() if shared else value
        addresses.add(value.data_ptr())
        return {"tensor": path}
    if isinstance(value, Mapping):
        items = []
        for key, child in value.items():
            if type(key) not in (int, str):
                raise TypeError(f"{path} has the key {key!r}; only int and str can be kept")
            items.append([key, _take_apart(child, _join(path, key), tensors, addresses)])
        return {"dict": items}
    if isinstance(value, list | tuple):
        children = [_take_apart(c, _join(path, i), tensors, addresses) for i, c in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": children}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}, which cannot be kept")


def _put_together(structure: Json, tensors: "dict[str, Tensor]") -> Any:
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    match kind:
        case "tensor":
            return tensors.pop(content)
        case "dict":
            return {key: _put_together(child, tensors) for key, child in content}
        case "list":
            return [_put_together(child, tensors) for child in content]
        case "tuple":
            return tuple(_put_together(child, tensors) for child in content)
        case "float":
            return float(content)
    raise ValueError(f"unknown kind {kind!r}")


def _join(path: str, key: int | str) -> str:
    return f"{path}.{key}" if path else str(key)
