"""The learning rate as a function of the step alone, so that resuming needs no state."""

import math

from exp.config.schema import Schedule, SchedulerConfig


def learning_rate_factor(step: int, num_steps: int, config: SchedulerConfig) -> float:
    """Return the share of the peak learning rate that step `step` is taken with.

    Args:
        step: Counted from 0. Warmup rises linearly, so that step `warmup` is the first at the peak.
        num_steps: Steps of the whole run, from the plan.
        config: Shape, warmup, end.
    """
    warmup = warmup_steps(num_steps, config)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    # 0 at the first step behind warmup, 1 one step past the last, so that no step is wasted at 0.
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    floor = config.min_lr_fraction
    match config.kind:
        case Schedule.constant:
            return 1.0
        case Schedule.linear:
            shape = 1.0 - progress
        case Schedule.cosine:
            shape = 0.5 * (1.0 + math.cos(math.pi * progress))
        case Schedule.wsd:
            decay = max(1, round(config.decay_fraction * num_steps))
            shape = min(1.0, (num_steps - step) / decay)
    return floor + (1.0 - floor) * shape


def warmup_steps(num_steps: int, config: SchedulerConfig) -> int:
    """Count the steps of warmup."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return round(config.warmup_fraction * num_steps)
