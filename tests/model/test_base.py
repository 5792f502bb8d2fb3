from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedModel

from exp.config.schema import ModelConfig, Precision
from exp.errors import ModelError
from exp.model.base import body_of, head_of, load_base, logits_of, plain_attention
from exp.model.source import ModelFiles

Tiny = Callable[..., PreTrainedModel]

IDS = torch.arange(12).unsqueeze(0)
NAMES = ("llama", "qwen2", "qwen3", "gemma3", "mistral", "gemma2", "granite")


def random_config(base: PreTrainedModel) -> ModelConfig:
    architecture = {"model_type": base.config.model_type, **base.config.to_diff_dict()}
    return ModelConfig(name="tiny", architecture=architecture)


def load(config: ModelConfig, folder: Path | None = None, **changes: Any) -> PreTrainedModel:
    settings = {"precision": Precision.fp32, "seed": 0} | changes
    return load_base(config, ModelFiles(folder, "here"), **settings)


@pytest.mark.parametrize("name", NAMES)
def test_body_and_head_give_the_model_s_own_logits(tiny: Tiny, name: str) -> None:
    model = tiny(name)
    hidden = body_of(model)(input_ids=IDS, use_cache=False).last_hidden_state
    expected = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(logits_of(head_of(model), hidden), expected)


@pytest.mark.parametrize(("name", "field"), [("gemma2", "softcap"), ("granite", "scale")])
def test_what_is_done_to_logits_is_read_from_the_config(tiny: Tiny, name: str, field: str) -> None:
    assert getattr(head_of(tiny("llama")), field) in (None, 1.0)
    assert getattr(head_of(tiny(name)), field) not in (None, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back_from_its_folder_frozen_and_in_eval_mode(
    tiny: Tiny, name: str, tmp_path: Path
) -> None:
    model = tiny(name)
    model.save_pretrained(tmp_path)
    loaded = load(ModelConfig(name="tiny"), tmp_path)
    assert torch.equal(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp16])
def test_the_base_has_the_asked_precision(tiny: Tiny, precision: Precision, tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    dtype = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}[precision]
    for folder in (tmp_path, None):
        model = load(random_config(tiny("llama")), folder, precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_random_weights_follow_from_the_seed_alone(tiny: Tiny) -> None:
    config = random_config(tiny("llama"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load(config, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    same, other = load(config, seed=1), load(config, seed=2)
    assert torch.equal(first.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_generation_settings_of_a_repository_are_dropped(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.3
    model.save_pretrained(tmp_path)
    loaded = load(ModelConfig(name="tiny"), tmp_path)
    assert loaded.generation_config == type(loaded.generation_config)()


def test_logits_that_are_more_than_a_projection_are_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = random_config(tiny("llama"))
    own_forward = LlamaForCausalLM.forward

    def scaled(self: LlamaForCausalLM, **inputs: Any) -> Any:
        output = own_forward(self, **inputs)
        output.logits = output.logits * 2
        return output

    load(config)
    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(ModelError, match="more than a projection"):
        load(config)


def test_a_folder_that_is_no_causal_lm_is_a_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing_known"}')
    with pytest.raises(ModelError, match="model=tiny cannot be loaded"):
        load(ModelConfig(name="tiny"), tmp_path)


def test_a_half_copied_weights_file_is_an_error_that_says_where(tiny: Tiny, tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match="model=tiny cannot be loaded"):
        load(ModelConfig(name="tiny"), tmp_path)


def test_weights_that_a_folder_lacks_are_not_made_up(tiny: Tiny, tmp_path: Path) -> None:
    tiny("qwen3").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot be loaded: it lacks lm_head\.weight"):
        load(ModelConfig(name="tiny"), tmp_path)


def test_weights_of_another_shape_are_a_user_s_mistake(tiny: Tiny, tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 40')
    )
    with pytest.raises(ModelError, match="model=tiny cannot be loaded"):
        load(ModelConfig(name="tiny"), tmp_path)


def test_a_model_without_sdpa_gets_its_eager_attention(tiny: Tiny) -> None:
    assert plain_attention(tiny("llama")) == "sdpa"
    gemma2 = tiny("gemma2")
    gemma2.set_attn_implementation(plain_attention(gemma2))
