"""Parameters counted from the config alone are the ones that the built model has."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from exp.errors import ModelError
from exp.hardware.memory.sizes import adapter_parameters, read_sizes

FOLDER = Path(__file__).parents[3] / "conf" / "model"
TINY = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def architecture(name: str) -> dict[str, Any]:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)["architecture"]
    return content


def on_meta(config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return model


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_every_model_of_the_list_has_as_many_parameters_as_counted(name: str) -> None:
    counted = read_sizes(architecture(name), name).parameters
    assert counted == sum(p.numel() for p in on_meta(architecture(name)).parameters())


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_known_kind_is_counted_right(kind: str, tied: bool) -> None:
    config = TINY | {"model_type": kind, "tie_word_embeddings": tied}
    counted = read_sizes(config, kind).parameters
    assert counted == sum(p.numel() for p in on_meta(config).parameters())


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "v_proj"], ["down_proj"]])
def test_an_adapter_is_counted_right(targets: list[str]) -> None:
    config = TINY | {"model_type": "llama", "tie_word_embeddings": False}
    sizes = read_sizes(config, "tiny")
    names = "all-linear" if targets == ["all-linear"] else targets
    adapted = get_peft_model(
        on_meta(config), LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=names)
    )
    expected = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sizes.layers * adapter_parameters(sizes.targeted(targets), 3) == expected


def test_the_text_part_of_a_model_that_reads_more_than_text_counts() -> None:
    config = TINY | {"model_type": "llama"}
    assert read_sizes({"text_config": config, "vision_config": {}}, "x") == read_sizes(config, "x")


def test_a_kind_that_the_formulas_do_not_follow_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="of the kind mamba; the memory plan knows llama"):
        read_sizes(TINY | {"model_type": "mamba"}, "x")


def test_what_is_missing_in_an_architecture_is_named() -> None:
    with pytest.raises(ModelError, match="has no hidden_size, num_hidden_layers in its"):
        read_sizes(
            {k: v for k, v in TINY.items() if k not in ("hidden_size", "num_hidden_layers")}, "x"
        )
