"""Predictions for examples: from the cache where it has them, decoded where it has not.

The model is asked for only if something must be computed, so a run that was evaluated before is
evaluated again without loading it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exp.config.schema import Strategy
from exp.data.render import Renderer
from exp.generation.cache.key import KeyContext, Request
from exp.generation.cache.store import PredictionCache
from exp.generation.row_seed import row_seed
from exp.generation.settings import GenerationSettings
from exp.records import Example, Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from exp.generation.decode import Decoder
    from exp.generation.row import Completion

log = logging.getLogger(__name__)

STORE_EVERY = 16
"""Finished rows per transaction: what a kill can cost at the most."""


@dataclass(frozen=True)
class Predictor:
    """Everything that decides a prediction, except the row.

    Attributes:
        renderer: Makes prompts, decodes completions.
        settings: How tokens are chosen and when to stop.
        context: What the cache's key consists of; None computes everything and keeps nothing.
        cache: The open cache; None likewise.
        label: What `exp cache info` calls these predictions.
    """

    renderer: Renderer
    settings: GenerationSettings
    context: KeyContext | None = None
    cache: PredictionCache | None = None
    label: str = ""
    _decoders: "list[Decoder]" = field(default_factory=list, init=False, repr=False, compare=False)

    def predict(
        self,
        examples: Sequence[Example],
        load_model: "Callable[[], PreTrainedModel]",
        advance: Callable[[int], None] = lambda rows: None,
    ) -> list[Prediction]:
        """Predict all examples, in their order.

        Args:
            examples: Rows; their outputs are not looked at.
            load_model: Called at most once, if a row is not in the cache. Must return the causal
                LM in eval mode, merged. With a context the model is kept for further calls.
            advance: Called with the number of rows that came in.
        """
        prompts = self.renderer.render_prompts([example.input for example in examples])
        requests = [
            Request(example.id, prompt, self._seed(example))
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        done = self._look_up(requests)
        advance(len(done))
        waiting = [request for request in requests if request.id not in done]
        if waiting:
            self._compute(waiting, self._decoder(load_model), done, advance)
        return [done[example.id] for example in examples]

    def _decoder(self, load_model: "Callable[[], PreTrainedModel]") -> "Decoder":
        """Return the decoder, the one of the call before where the weights are sure to be equal.

        A context names them by content. Without one, as in validation while training goes on, each
        call may see others.
        """
        from exp.generation.decode import Decoder

        if self.context is None:
            return Decoder(load_model(), self.settings)
        if not self._decoders:
            self._decoders.append(Decoder(load_model(), self.settings))
        return self._decoders[0]

    def _seed(self, example: Example) -> int | None:
        config = self.settings.config
        if config.strategy is not Strategy.sample:
            return None
        return row_seed(config.seed, example.id)

    def _look_up(self, requests: Sequence[Request]) -> dict[str, Prediction]:
        if self.cache is None or self.context is None:
            return {}
        found = self.cache.lookup(self.context, requests)
        log.info("prediction cache: %s", found)
        return dict(found.hits)

    def _compute(
        self,
        requests: Sequence[Request],
        decoder: "Decoder",
        done: dict[str, Prediction],
        advance: Callable[[int], None],
    ) -> None:
        finished: list[tuple[Request, Prediction]] = []

        def keep() -> None:
            if self.cache is not None and self.context is not None and finished:
                self.cache.store(self.context, finished, self.label)
            finished.clear()

        def on_finished(row: int, completion: "Completion") -> None:
            request = requests[row]
            prediction = Prediction(
                id=request.id,
                text=self.renderer.decode(completion.token_ids),
                finish_reason=completion.finish_reason,
                num_tokens=len(completion.token_ids),
                token_ids=completion.token_ids,
            )
            done[request.id] = prediction
            finished.append((request, prediction))
            if len(finished) >= STORE_EVERY:
                keep()
            advance(1)

        try:
            decoder.decode(requests, on_finished)
        finally:
            keep()
