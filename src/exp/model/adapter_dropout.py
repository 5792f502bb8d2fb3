"""Dropout on the inputs of LoRA layers: one mask per input, drawn cheaply on a CPU.

torch draws a CPU mask at some 4 ns an element, which for the inputs of four adapters per layer is a
fifth of a training step. Here one random byte decides an element, from a generator that makes
several a nanosecond, and the layers that read the same input (q, k and v) share its mask. The rate
is rounded to a multiple of 1/256, and the scale goes with the rounded rate, so that the expected
value stays exact.
"""

import weakref

import numpy as np
import torch
from torch import Tensor


class InputMasks:
    """Hands out the mask of an input; asked twice about the same tensor, it answers the same."""

    def __init__(self, rate: float) -> None:
        self.dropped_of_256 = min(255, max(1, round(rate * 256)))
        self.scale = 256 / (256 - self.dropped_of_256)
        self._input: weakref.ref[Tensor] | None = None
        self._kept: Tensor | None = None

    def kept(self, x: Tensor) -> Tensor:
        """Draw, or repeat, which elements of `x` stay: a bool tensor of its shape."""
        if self._kept is None or self._input is None or self._input() is not x:
            self._kept = self._draw(x)
            self._input = weakref.ref(x)
        return self._kept

    def _draw(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            keep = 1 / self.scale
            return torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(keep)
        # Seeded by torch's generator: whatever fixes that one fixes the masks, checkpointing too.
        seed = int(torch.randint(2**63 - 1, ()))
        random = np.random.Generator(np.random.SFC64(seed))
        drawn = torch.from_numpy(np.frombuffer(random.bytes(x.numel()), dtype=np.uint8).copy())
        return drawn.view(x.shape) >= self.dropped_of_256
