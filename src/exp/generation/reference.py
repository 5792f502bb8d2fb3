"""Decoding through transformers' generate: sampling, beams, and models that no stream serves."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig as TransformersGenerationConfig
from transformers import PreTrainedModel

from exp.config.schema import GenerationConfig, Strategy
from exp.generation.cache.key import Request
from exp.generation.engine import MEMORY_SHARE
from exp.generation.row import Completion
from exp.generation.settings import GenerationSettings
from exp.generation.slots import rows_in_memory
from exp.model.base import plain_attention


def generate_with_transformers(
    model: PreTrainedModel,
    requests: Sequence[Request],
    settings: GenerationSettings,
    on_finished: Callable[[int, Completion], None],
    *,
    key_value_cache: bool = True,
) -> None:
    """Decode left-padded batches of rows of like length.

    Sampled rows run one at a time, each from its own seed, so that no row depends on its batch.
    Without `key_value_cache` every token computes all before it anew: a plain reference.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation(plain_attention(model))
    options = _options(settings, key_value_cache)
    order = sorted(range(len(requests)), key=lambda row: -len(requests[row].prompt_ids))
    size = 1
    if settings.config.strategy is not Strategy.sample:
        longest = len(requests[order[0]].prompt_ids) + settings.max_new_tokens
        beams = settings.config.num_beams if settings.config.strategy is Strategy.beam else 1
        size = rows_in_memory(model, longest * beams, settings.num_slots, MEMORY_SHARE)
    try:
        # All devices by name: asked for none, fork_rng warns where there are several.
        with torch.inference_mode(), torch.random.fork_rng(range(torch.cuda.device_count())):
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                if settings.config.strategy is Strategy.sample:
                    seed = requests[rows[0]].seed
                    assert seed is not None
                    torch.manual_seed(seed)
                for row, completion in zip(
                    rows, _batch(model, [requests[row] for row in rows], options), strict=True
                ):
                    on_finished(row, completion)
    finally:
        model.set_attn_implementation(implementation)


def _batch(
    model: PreTrainedModel, requests: Sequence[Request], options: TransformersGenerationConfig
) -> list[Completion]:
    longest = max(len(request.prompt_ids) for request in requests)
    ids = torch.zeros((len(requests), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, longest - len(request.prompt_ids) :] = torch.tensor(list(request.prompt_ids))
        mask[row, longest - len(request.prompt_ids) :] = 1
    produced = model.generate(  # type: ignore[operator]
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=options,
    )
    return [_cut(row[longest:], options) for row in produced.tolist()]


def _cut(token_ids: list[int], options: TransformersGenerationConfig) -> Completion:
    for position, token in enumerate(token_ids):
        if token in options.eos_token_id:
            return Completion(tuple(token_ids[:position]), "stop")
    return Completion(tuple(token_ids), "length")


def _options(settings: GenerationSettings, key_value_cache: bool) -> TransformersGenerationConfig:
    """Build the options from zero: nothing of the model's own generation_config is in them."""
    config: GenerationConfig = settings.config
    options: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "eos_token_id": list(settings.stop_ids),
        # Finished rows are filled with it; what comes behind a stop token is cut off by position.
        "pad_token_id": settings.stop_ids[0],
        "do_sample": False,
        "use_cache": key_value_cache,
    }
    if config.strategy is Strategy.sample:
        options |= {
            "do_sample": True,
            "temperature": config.temperature,
            "top_k": config.top_k or 0,
            "top_p": config.top_p or 1.0,
            "repetition_penalty": config.repetition_penalty,
        }
    elif config.strategy is Strategy.beam:
        options |= {
            "num_beams": config.num_beams,
            "no_repeat_ngram_size": config.no_repeat_ngram_size,
            "length_penalty": config.length_penalty,
        }
    return TransformersGenerationConfig(**options)
