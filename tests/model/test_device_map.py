"""A model whose layers are brought in at every use computes and trains like one in one place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from exp.config.schema import (
    DeviceMap,
    GenerationConfig,
    Layout,
    LoraConfig,
    LossOn,
    ModelConfig,
    Precision,
)
from exp.data.batch import collate
from exp.errors import ModelError
from exp.generation.cache.key import Request
from exp.generation.decode import Decoder
from exp.generation.row import Completion
from exp.generation.settings import GenerationSettings
from exp.model.base import Storage, load_base
from exp.model.device_map import check_placement, is_spread, placement
from exp.model.forward import enable_checkpointing, prepare_for_layout
from exp.model.lora import attach_lora
from exp.model.merge import is_merged_exactly, merged_for_inference
from exp.model.source import ModelFiles
from exp.records import Rendered
from exp.training.loss import batch_loss

Tiny = Callable[..., PreTrainedModel]
MAP = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
ROWS = [Rendered((*range(20), 30 + i), tuple(range(40 + i, 44 + 2 * i))) for i in range(3)]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def spread(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=MAP, offload_folder=folder.parent / "offload"
    )
    return model.requires_grad_(False)


def adapted(model: PreTrainedModel) -> PeftModel:
    peft = attach_lora(model, LoraConfig(r=4, target_modules=["all-linear"]), seed=0)
    random = torch.Generator().manual_seed(1)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.1
    return peft


def loss_and_gradients(model: PeftModel, layout: Layout) -> tuple[float, dict[str, Tensor]]:
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]
    prepare_for_layout(base, layout)
    model.train()
    batch = collate(ROWS, ("a", "b", "c"), layout, LossOn.completion)
    loss = batch_loss(base, batch)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("layout", list(Layout))
def test_gradients_are_those_of_a_model_in_one_place(
    tiny: Tiny, folder: Path, layout: Layout, checkpointing: bool
) -> None:
    model = spread(folder)
    assert model.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    peft = adapted(model)
    if checkpointing:
        enable_checkpointing(model)
    loss, gradients = loss_and_gradients(peft, layout)
    expected_loss, expected = loss_and_gradients(adapted(tiny("llama")), layout)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert gradients.keys() == expected.keys()
    for name, tensor in expected.items():
        assert float((gradients[name] - tensor).norm() / tensor.norm()) <= 1e-5


def test_an_adapter_of_layers_that_are_elsewhere_starts_like_any_other(folder: Path) -> None:
    peft = attach_lora(spread(folder), LoraConfig(r=4, target_modules=["all-linear"]), seed=0)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            assert parameter.device.type == "cpu"
            assert parameter.dtype is torch.float32
            assert bool(parameter.any()) == ("lora_A" in name)
            assert parameter.requires_grad


def test_weights_that_are_elsewhere_are_not_merged(tiny: Tiny, folder: Path) -> None:
    peft = adapted(spread(folder)).eval()
    expected = adapted(tiny("llama")).eval()
    ids = torch.arange(12)[None]
    assert not is_merged_exactly(peft)
    with merged_for_inference(peft), torch.no_grad():
        found = peft(input_ids=ids).logits
        torch.testing.assert_close(found, expected(input_ids=ids).logits)


def test_a_spread_model_decodes_what_one_in_one_place_does(tiny: Tiny, folder: Path) -> None:
    settings = GenerationSettings(
        config=GenerationConfig(max_new_tokens=6, drafting=False), stop_ids=(7, 8), num_slots=2
    )
    requests = [Request(str(i), (*range(10, 30), i), None) for i in range(3)]
    texts = []
    for model in (spread(folder), tiny("llama")):
        found: dict[int, Completion] = {}
        Decoder(model.eval(), settings).decode(requests, found.__setitem__)
        texts.append(found)
    assert texts[0] == texts[1]


def test_the_parts_of_a_spread_model_are_known(tiny: Tiny, folder: Path) -> None:
    assert is_spread(spread(folder))
    assert placement(spread(folder))["model.layers.1"] == "disk"
    assert not is_spread(tiny("llama"))


def test_no_room_on_the_devices_is_an_error_with_ways_out(folder: Path) -> None:
    with pytest.raises(ModelError, match="no room for 1 of its 6 parts") as caught:
        check_placement(spread(folder), "tiny", None)
    assert "quantization=nf4" in str(caught.value.fix)
    assert "hardware.offload_gib" in str(caught.value.fix)


def test_random_weights_are_not_spread() -> None:
    storage = Storage(device_map=DeviceMap.balanced, max_memory=(1.0, 1.0))
    config = ModelConfig(name="tiny", architecture={"model_type": "llama"})
    with pytest.raises(ModelError, match="random weights is not spread"):
        load_base(config, ModelFiles(None, ""), Precision.fp32, 0, storage)


@pytest.mark.parametrize(
    ("device_map", "expected"),
    [(DeviceMap.balanced, "balanced"), (DeviceMap.auto, "sequential")],
)
def test_loading_is_told_what_each_device_may_take(device_map: DeviceMap, expected: str) -> None:
    options: dict[str, Any] = Storage(
        device_map=device_map, max_memory=(11.6, 10.0), offload_gib=30.0
    ).loading_options(torch.float16)
    assert options == {
        "device_map": expected,
        "max_memory": {0: "11.6GiB", 1: "10.0GiB", "cpu": "30.0GiB"},
    }


def test_without_offloading_the_cpu_may_take_nothing() -> None:
    options = Storage(device_map=DeviceMap.auto, max_memory=(1.0,)).loading_options(torch.float16)
    assert options["max_memory"]["cpu"] == "0GiB"
