"""Choose the decoder for a strategy and a model, and run it."""

import logging
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from exp.config.schema import Layout, Strategy
from exp.generation.cache.key import Request
from exp.generation.engine import Completion, generate_greedily
from exp.generation.reference import generate_with_transformers
from exp.generation.settings import GenerationSettings
from exp.model.forward import choose_layout

log = logging.getLogger(__name__)


def decode(
    model: PreTrainedModel,
    requests: Sequence[Request],
    settings: GenerationSettings,
    on_finished: Callable[[int, Completion], None],
) -> None:
    """Decode all rows; `on_finished(row number, completion)` is called as each one ends."""
    prompts = [request.prompt_ids for request in requests]
    longest = max(map(len, prompts)) + settings.max_new_tokens
    choice = choose_layout(model, Layout.shared_prefix, longest)
    if choice.reason is not None:
        log.info("generation goes through transformers, padded: %s", choice.reason)
    if settings.config.strategy is Strategy.greedy and choice.reason is None:
        generate_greedily(
            model,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=settings.stop_ids,
            num_slots=settings.num_slots,
            on_finished=on_finished,
        )
    else:
        generate_with_transformers(model, requests, settings, on_finished)
