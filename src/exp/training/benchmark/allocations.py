"""Bytes that torch's CPU allocator has handed out, and the peak of them: exact to the byte.

Resident memory also holds what libraries and the C allocator keep, and leaves out what was never
touched. The profiler reports every single allocation and release, those inside of kernels included,
so the running sum of them is what a plan has to predict.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile, record_function

MEMORY_EVENT = "[memory]"
MARKED = "exp::marked"


@dataclass(slots=True)
class Allocations:
    """What was in use within a marked part of the recording.

    Attributes:
        peak_bytes: The most at a time, with all that was allocated before and still in use.
    """

    peak_bytes: int = 0


@contextmanager
def recorded() -> Iterator[tuple[Allocations, Callable[[], record_function]]]:
    """Record all allocations within the block; yields the result and what marks a part of it.

    The result is there when the block has ended. What was allocated before it does not count.
    """
    allocations = Allocations()
    # What an earlier recording saw come would count as negative when it goes in this one.
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield allocations, lambda: record_function(MARKED)
    assert profiler.profiler is not None
    events = list(profiler.profiler.kineto_results.events())
    spans = [
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.name() == MARKED
    ]
    in_use = 0
    changes = [event for event in events if event.name() == MEMORY_EVENT]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        if any(start <= event.start_ns() <= end for start, end in spans):
            allocations.peak_bytes = max(allocations.peak_bytes, in_use)
