"""The memory of a training run: settings that fit before it, predicted beside measured after it."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from exp.commands.fitting import TrainingData
from exp.commands.foundation import Foundation
from exp.commands.lengths import Lengths, architecture_of
from exp.commands.memory import request_of, wanted
from exp.config.schema import Accelerator, Attention, TrainConfig
from exp.data.selection import Selection
from exp.data.tokens import TokenStore
from exp.errors import ModelError
from exp.hardware.machine import GIB
from exp.hardware.memory.card import Card
from exp.hardware.memory.choice import LIBRARIES_GIB, budget_bytes, choose
from exp.hardware.memory.micro_batch import Forward, largest_forwards
from exp.hardware.memory.phases import Prediction, predict
from exp.hardware.resolver import ResolvedHardware
from exp.records import Derived
from exp.training.benchmark.memory import MemoryMark, mark_memory

log = logging.getLogger(__name__)

TOLERANCE = 0.15
"""Relative difference of predicted and measured peak from which on a run says so."""


def fit_memory(
    config: TrainConfig, foundation: Foundation, store: TokenStore, selection: Selection
) -> tuple[TrainConfig, tuple[Derived, ...]]:
    """Choose what the memory plan may choose.

    A resumed run keeps what was chosen for it. Of a model that is spread over several devices the
    plan knows nothing.
    """
    training = config.training
    if training.resume is not None or foundation.hardware.device_map is not None:
        return config, ()
    card = card_of_run(config, foundation.hardware)
    lengths = lengths_of(config, foundation, store, selection)
    try:
        choice = choose(
            request_of(config, card, lengths), wanted(config, card, quantize=False), card.memory_gib
        )
    except ModelError as error:
        chosen = bool(training.gradient_checkpointing)
        reason = Derived("training.gradient_checkpointing", chosen, f"no plan: {error.what}")
        return replace(config, training=replace(training, gradient_checkpointing=chosen)), (reason,)
    if not choice.fits:
        ways = ["a smaller model"]
        if card.quantize_to is not None and config.quantization.name == "none":
            ways.insert(0, f"quantization={card.quantize_to}")
        log.warning(
            "memory: at least %.2f GiB are needed, and a run may use %.2f of %.1f; try %s",
            choice.prediction.peak / GIB,
            choice.budget / GIB,
            card.memory_gib,
            " or ".join(ways),
        )
    settings = choice.settings
    training = replace(
        training,
        micro_batch_tokens=settings.micro_batch_tokens,
        gradient_checkpointing=settings.checkpointing,
    )
    return replace(config, training=training), choice.reasons


def card_of_run(config: TrainConfig, hardware: ResolvedHardware) -> Card:
    """Describe the device that was settled."""
    return Card(
        name=hardware.name,
        on_cpu=hardware.accelerator is Accelerator.cpu,
        devices=hardware.devices,
        memory_gib=hardware.memory_gib,
        precision=hardware.precision,
        quantize_to=config.hardware.quantize_to,
        varlen=hardware.attention is Attention.flash,
    )


def lengths_of(
    config: TrainConfig, foundation: Foundation, store: TokenStore, selection: Selection
) -> Lengths:
    """Gather the lengths of the rows that are used."""
    return Lengths(
        lengths=np.asarray(store.lengths[selection.rows]),
        completions=np.asarray(store.completion_lengths[selection.rows]),
        shared=len(store.head_ids),
        architecture=architecture_of(config.model, foundation.files),
    )


@dataclass
class MemoryWatch:
    """Compares the peak of a run with its prediction; make it before the model is loaded."""

    config: TrainConfig
    foundation: Foundation
    mark: MemoryMark
    prediction: Prediction | None = None

    @property
    def _on_cpu(self) -> bool:
        return self.foundation.hardware.accelerator is Accelerator.cpu

    @classmethod
    def start(cls, config: TrainConfig, foundation: Foundation) -> "MemoryWatch":
        """Begin to measure."""
        on_cpu = foundation.hardware.accelerator is Accelerator.cpu
        return cls(config, foundation, mark_memory("cpu" if on_cpu else "cuda"))

    def expect(self, data: TrainingData) -> Forward | None:
        """Predict the peak from the plan in force; return the forward to probe, if one is due."""
        config, hardware = self.config, data.hardware
        if hardware.device_map is not None:
            return None
        lengths = lengths_of(config, self.foundation, data.store, data.selection)
        plan = replace(data.plan, world_size=hardware.devices)
        try:
            request = request_of(config, card_of_run(config, hardware), lengths, plan)
        except ModelError:
            return None
        self.prediction = predict(
            request,
            largest_forwards(plan),
            checkpointing=bool(config.training.gradient_checkpointing),
            quantization=hardware.quantization,
            budget=budget_bytes(hardware.memory_gib, on_cpu=self._on_cpu),
        )
        wish = config.training.probe_memory
        due = not self._on_cpu if wish is None else wish
        largest = self.prediction.largest
        return largest if due and largest.step is not None else None

    @property
    def _measured_as(self) -> str:
        return "resident" if self._on_cpu else "allocated on the device"

    def compare(self) -> dict[str, Any]:
        """What goes into run.json: bytes predicted and measured; a large difference is a warning.

        On a CPU the measured peak is resident memory, in which libraries and the C allocator keep
        up to a gibibyte of their own.
        """
        measured, prediction = self.mark.peak_bytes(), self.prediction
        if prediction is None:
            return {"predicted_bytes": None, "measured_bytes": measured}
        allowed = TOLERANCE * prediction.peak + self._on_cpu * LIBRARIES_GIB * GIB
        if measured is not None and abs(measured - prediction.peak) > allowed:
            log.warning(
                "memory: %.2f GiB were %s at the most, but %.2f were predicted%s",
                measured / GIB,
                self._measured_as,
                prediction.peak / GIB,
                "; the C allocator may keep what is free" if self._on_cpu else "",
            )
        return {
            "predicted_bytes": prediction.peak,
            "measured_bytes": measured,
            "measured_as": self._measured_as,
            "phases": {phase.name: dict(phase.parts) for phase in prediction.phases},
            "largest_forward": asdict(prediction.largest.batch),
            "peak_in": prediction.activations.place,
        }
