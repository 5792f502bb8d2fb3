import math

import pytest

from exp.config.schema import Schedule, SchedulerConfig
from exp.training.scheduler import learning_rate_factor, warmup_steps

STEPS = 100


def factors(num_steps: int = STEPS, **settings: object) -> list[float]:
    config = SchedulerConfig(**settings)  # type: ignore[arg-type]
    return [learning_rate_factor(step, num_steps, config) for step in range(num_steps)]


@pytest.mark.parametrize("kind", Schedule)
def test_warmup_rises_linearly_from_above_zero_to_the_peak(kind: Schedule) -> None:
    rising = factors(kind=kind, warmup_steps=9)
    assert rising[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rising) == 1.0


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_each_shape_is_its_closed_form(floor: float) -> None:
    common = {"warmup_steps": 20, "min_lr_fraction": floor}
    part = [(step - 20) / 80 for step in range(20, STEPS)]
    linear = [floor + (1 - floor) * (1 - x) for x in part]
    cosine = [floor + (1 - floor) * (1 + math.cos(math.pi * x)) / 2 for x in part]
    wsd = [floor + (1 - floor) * min(1, (STEPS - step) / 25) for step in range(20, STEPS)]
    assert factors(kind=Schedule.linear, **common)[20:] == pytest.approx(linear)
    assert factors(kind=Schedule.cosine, **common)[20:] == pytest.approx(cosine)
    assert factors(kind=Schedule.wsd, decay_fraction=0.25, **common)[20:] == pytest.approx(wsd)
    assert factors(kind=Schedule.constant, **common)[20:] == [1.0] * 80


@pytest.mark.parametrize("kind", Schedule)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_no_step_is_taken_with_a_learning_rate_of_zero(kind: Schedule, num_steps: int) -> None:
    found = factors(num_steps, kind=kind)
    assert len(found) == num_steps
    assert all(0 < factor <= 1 for factor in found)


def test_a_step_behind_the_plan_is_taken_at_the_floor() -> None:
    assert learning_rate_factor(200, STEPS, SchedulerConfig(min_lr_fraction=0.2)) == 0.2


@pytest.mark.parametrize(("settings", "expected"), [({}, 6), ({"warmup_steps": 0}, 0)])
def test_warmup_steps_override_the_fraction(settings: dict[str, int], expected: int) -> None:
    assert warmup_steps(STEPS, SchedulerConfig(**settings)) == expected  # type: ignore[arg-type]
