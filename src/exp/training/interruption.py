"""End a run at the next step boundary when told to stop, with a checkpoint and the right code.

Lightning ends with exit code 0 after SIGTERM, so that a preempted run would look like a success.
"""

import signal
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Interrupted(Exception):
    """The run was told to stop and has saved its state."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"interrupted, exit code {exit_code}")
        self.exit_code = exit_code


class Interruption(Callback):
    """Takes SIGTERM and SIGINT over while training; a second one acts as it did before."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Install the handlers behind Lightning's own."""
        for number in EXIT_CODES:
            self._before[number] = signal.signal(number, self._receive)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Give the handlers back."""
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        """Give the handlers back."""
        self._restore()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop behind a whole step: half of one cannot be resumed exactly.

        One process may have been told before the others; all stop behind the same step.
        """
        told = self.received is not None
        if trainer.strategy.reduce_boolean_decision(told, all=False):
            self.received = self.received or signal.SIGTERM
            trainer.should_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
