"""Each conf/model file describes the published model: its parameters, counted without weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from exp.config.schema import ModelConfig, Weights

FOLDER = Path(__file__).parents[1] / "conf" / "model"
FILES = sorted(FOLDER.glob("*.yaml"))

# From the safetensors headers that the hub shows with each model; tied weights count once.
PUBLISHED_PARAMETERS = {
    "smollm2_135m": 134_515_008,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_3b": 3_085_938_688,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "llama3_1_8b": 8_030_261_248,
    "gemma3_270m": 268_098_176,
}


def load(name: str) -> ModelConfig:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert values.pop("defaults") == ["base_model", "_self_"]
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), values))
    assert isinstance(config, ModelConfig)
    return config


def make_config(name: str) -> PretrainedConfig:
    return AutoConfig.for_model(**load(name).architecture)


def build_on_meta(name: str) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(make_config(name))


def test_every_model_of_the_list_has_a_file() -> None:
    assert {path.stem for path in FILES} >= {*PUBLISHED_PARAMETERS, "tiny"}


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_the_architecture_has_just_the_published_number_of_parameters(name: str) -> None:
    num_parameters = sum(p.numel() for p in build_on_meta(name).parameters())
    assert num_parameters == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_model_is_called_as_its_file(name: str) -> None:
    assert load(name).name == name


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_every_pretrained_model_says_where_its_weights_are(name: str) -> None:
    config = load(name)
    if config.weights is Weights.pretrained:
        assert (config.hub_id or "").count("/") == 1


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_every_key_of_the_architecture_is_one_that_transformers_keeps(name: str) -> None:
    architecture = load(name).architecture
    kept: dict[str, Any] = make_config(name).to_dict()
    assert {key: kept.get(key, "not kept") for key in architecture} == architecture


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize(
    ("name", "factor"), [("llama3_1_8b", 8.0), ("llama3_2_1b", 32.0), ("llama3_2_3b", 32.0)]
)
def test_llama_rotates_with_its_own_scaling(name: str, factor: float) -> None:
    rope = make_config(name).rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", factor, 500000.0)


def test_every_sixth_layer_of_gemma_sees_the_whole_text() -> None:
    layer_types = make_config("gemma3_270m").layer_types
    whole = [i for i, kind in enumerate(layer_types) if kind == "full_attention"]
    assert whole == [5, 11, 17]


@pytest.mark.thorough
def test_the_default_model_is_the_one_in_its_wheel() -> None:
    gguf = pytest.importorskip("gguf")
    config = load("smollm2_135m")
    wheel = find_spec(config.wheel or "")
    if wheel is None or wheel.origin is None:
        pytest.skip("the wheel with the weights is not installed")
    (file,) = Path(wheel.origin).parent.glob("*.gguf")
    fields = gguf.GGUFReader(file).fields

    def stored(key: str) -> Any:
        return fields[key].contents()

    expected = config.architecture
    assert stored("general.architecture") == expected["model_type"]
    assert stored("llama.block_count") == expected["num_hidden_layers"]
    assert stored("llama.context_length") == expected["max_position_embeddings"]
    assert stored("llama.embedding_length") == expected["hidden_size"]
    assert stored("llama.feed_forward_length") == expected["intermediate_size"]
    assert stored("llama.attention.head_count") == expected["num_attention_heads"]
    assert stored("llama.attention.head_count_kv") == expected["num_key_value_heads"]
    assert stored("llama.rope.dimension_count") == expected["head_dim"]
    assert stored("llama.rope.freq_base") == expected["rope_parameters"]["rope_theta"]
    assert stored("llama.attention.layer_norm_rms_epsilon") == pytest.approx(
        expected["rms_norm_eps"]
    )
    assert stored("llama.vocab_size") == expected["vocab_size"]
    assert stored("tokenizer.ggml.bos_token_id") == expected["bos_token_id"]
    assert stored("tokenizer.ggml.eos_token_id") == expected["eos_token_id"]
    assert stored("tokenizer.ggml.padding_token_id") == expected["pad_token_id"]


def test_the_tiny_model_is_tiny_and_needs_no_download() -> None:
    config = load("tiny")
    assert config.weights is Weights.random
    assert config.hub_id is config.wheel is None
    assert sum(p.numel() for p in build_on_meta("tiny").parameters()) < 200_000
