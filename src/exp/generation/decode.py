"""Choose the decoder for a strategy and a model, and run it."""

import logging
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from exp.config.schema import Layout, Strategy
from exp.errors import ModelError
from exp.generation.cache.key import Request
from exp.generation.drafting import open_drafter
from exp.generation.engine import Engine
from exp.generation.reference import generate_with_transformers
from exp.generation.row import Completion
from exp.generation.settings import GenerationSettings
from exp.model.device_map import is_spread
from exp.model.forward import LayoutChoice, choose_layout

log = logging.getLogger(__name__)


class Decoder:
    """Decodes requests with one state of a model's weights; keeps the shared prefix between calls.

    Args:
        model: The causal LM in eval mode, merged.
        settings: How tokens are chosen and when to stop.
    """

    def __init__(self, model: PreTrainedModel, settings: GenerationSettings) -> None:
        self._model, self._settings = model, settings
        self._engine: Engine | None = None

    def decode(
        self, requests: Sequence[Request], on_finished: Callable[[int, Completion], None]
    ) -> None:
        """Decode all rows; `on_finished(row number, completion)` is called as each one ends.

        Raises:
            ModelError: Completions have to obey a schema, and the engine cannot serve the model.
        """
        settings = self._settings
        prompts = [request.prompt_ids for request in requests]
        longest = max(map(len, prompts)) + settings.max_new_tokens
        choice = choose_layout(self._model, Layout.shared_prefix, longest)
        if is_spread(self._model):
            reason = "the model is spread over several devices"
            choice = LayoutChoice(Layout.padded, reason)
        if choice.reason is not None:
            if settings.constraint is not None:
                raise ModelError(
                    f"Decoding cannot be held to a schema with this model: {choice.reason}.",
                    where="generation.constrain=schema",
                    fix="generation.constrain=none, or another model",
                )
            log.info("generation goes through transformers, padded: %s", choice.reason)
        if settings.config.strategy is Strategy.greedy and choice.reason is None:
            if self._engine is None:
                self._engine = open_engine(self._model, settings)
            self._engine.generate(prompts, on_finished)
            log.debug("%s", self._engine.work)
        else:
            generate_with_transformers(self._model, requests, settings, on_finished)


def open_engine(model: PreTrainedModel, settings: GenerationSettings) -> Engine:
    """Make the engine that greedy settings ask for."""
    return Engine(
        model,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=settings.stop_ids,
        num_slots=settings.num_slots,
        drafter=open_drafter(settings) if settings.config.drafting else None,
        constraint=settings.constraint,
    )
