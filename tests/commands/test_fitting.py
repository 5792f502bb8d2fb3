"""What is said of a plan that ends before the steps that were asked for."""

import numpy as np
import pytest

from exp.commands.fitting import unreached_steps
from exp.config.schema import Layout, TrainingConfig
from exp.data.plan import BatchPlan


def plan(epochs: float, steps: int | None) -> BatchPlan:
    lengths = np.full(20, 10, np.int64)
    return BatchPlan(
        lengths=lengths,
        num_labels=lengths,
        shared_tokens=0,
        layout=Layout.padded,
        batch_size=4,
        micro_batch_tokens=1000,
        micro_batch_size=None,
        epochs=epochs,
        max_steps=steps,
        seed=0,
    )


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, None), (1.0, 5), (1.0, 3), (3.0, 12)])
def test_nothing_is_said_where_the_steps_are_reached(epochs: float, steps: int | None) -> None:
    training = TrainingConfig(epochs=epochs, steps=steps)
    assert unreached_steps(training, plan(epochs, steps)) is None


def test_steps_behind_the_last_epoch_are_said_with_the_epochs_that_have_them() -> None:
    line = unreached_steps(TrainingConfig(epochs=1.0, steps=12), plan(1.0, 12))
    assert line is not None
    assert "training.epochs=1 ends after 5 steps" in line
    assert "training.epochs=3" in line
    assert plan(3.0, 12).num_steps == 12
