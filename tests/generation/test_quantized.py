"""Decoding with an adapter beside a quantised base, and what the cache calls it."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from exp.config.schema import (
    DeviceMap,
    GenerationConfig,
    LoraConfig,
    ModelConfig,
    Weights,
)
from exp.generation.context import key_context
from exp.generation.engine import Engine
from exp.generation.row import Completion
from exp.generation.settings import GenerationSettings
from exp.hardware.resolver import ResolvedHardware
from exp.model.lora import attach_lora
from exp.model.merge import merged_for_inference
from exp.model.quantization import quantize_in_place, serve_quantized

pytestmark = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

PREFIX = tuple(range(10, 34))
PROMPTS = [(*PREFIX, 40 + i, 41) for i in range(4)]
STOP_IDS = (7, 8, 9)


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.thorough
def test_the_engine_decodes_what_transformers_does(
    build_model: Callable[..., Any], scheme: str
) -> None:
    plain = build_model("llama", hidden_size=64, intermediate_size=96, head_dim=16)
    model: Any = quantize_in_place(plain, scheme, "cpu")
    serve_quantized(model)
    peft = attach_lora(
        model.requires_grad_(False), LoraConfig(r=4, target_modules=["all-linear"]), seed=0
    )
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    peft.eval()
    found: dict[int, Completion] = {}
    with merged_for_inference(peft):
        Engine(model, max_new_tokens=10, stop_ids=STOP_IDS, num_slots=3).generate(
            PROMPTS, found.__setitem__
        )
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        produced = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=list(STOP_IDS),
            pad_token_id=STOP_IDS[0],
        )[0, len(prompt) :].tolist()
        expected = [token for token in produced if token not in STOP_IDS]
        assert list(found[row].token_ids) == expected


class FakeRenderer:
    digest = "r"


def context(hardware: ResolvedHardware) -> Any:
    return key_context(
        model=ModelConfig(
            name="tiny", weights=Weights.random, architecture={"model_type": "llama"}
        ),
        weight_files=[],
        seed=0,
        adapter_files=[],
        hardware=hardware,
        renderer=FakeRenderer(),  # type: ignore[arg-type]
        settings=GenerationSettings(
            config=GenerationConfig(max_new_tokens=4), stop_ids=(1,), num_slots=2
        ),
    )


def test_predictions_of_one_storage_are_not_taken_for_anothers(
    cpu_hardware: ResolvedHardware,
) -> None:
    contexts = [
        context(replace(cpu_hardware, quantization=name)) for name in ("none", "nf4", "int8")
    ]
    assert len(set(contexts)) == 3
    assert contexts[1].quantization.startswith("nf4, bitsandbytes 0.")


def test_predictions_in_tf32_are_not_taken_for_those_in_fp32(
    cpu_hardware: ResolvedHardware,
) -> None:
    assert context(cpu_hardware) != context(replace(cpu_hardware, tf32=not cpu_hardware.tf32))


def test_predictions_of_a_spread_model_are_its_own(cpu_hardware: ResolvedHardware) -> None:
    spread = replace(cpu_hardware, device_map=DeviceMap.balanced)
    assert context(cpu_hardware) != context(spread)
