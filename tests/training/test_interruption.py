import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from exp.model.lora import adapter_weights
from exp.training.checkpoint import find_checkpoint, read_checkpoint
from exp.training.interruption import Interrupted

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_ends_training_behind_the_step_with_its_exit_code(
    training: Build, number: signal.Signals, exit_code: int
) -> None:
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    run = training()
    record = run.records.append

    def interrupt(point: Any) -> None:
        record(point)
        if point[0] == 3:
            os.kill(os.getpid(), number)

    run.records = type("Records", (), {"append": staticmethod(interrupt)})()
    with pytest.raises(Interrupted) as caught:
        run.fit()
    assert caught.value.exit_code == exit_code
    checkpoint = read_checkpoint(find_checkpoint(run.run, "last"))
    assert checkpoint.step == 3
    assert {each: signal.getsignal(each) for each in handlers} == handlers

    unbroken, resumed = training(), training(start=checkpoint)
    unbroken.fit()
    resumed.fit()
    expected = adapter_weights(unbroken.model)
    found = adapter_weights(resumed.model)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
