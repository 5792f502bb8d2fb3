import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from exp.config.schema import Layout, LoraConfig, LossOn
from exp.data.batch import Batch, collate
from exp.model.forward import enable_checkpointing, prepare_for_layout
from exp.model.fused_layer import layer as fused
from exp.model.fused_layer.layer import fuse_layers
from exp.model.lora import attach_lora
from exp.model.packed_linear import pack_linears
from exp.records import Rendered
from exp.training.loss import batch_loss

Tiny = Callable[..., PreTrainedModel]

ALL = ["all-linear"]


def prepared(
    tiny: Tiny, name: str = "llama", layout: Layout = Layout.shared_prefix, **lora: Any
) -> tuple[nn.Module, PreTrainedModel]:
    """A tiny model in bf16 that trains over packed weights, its adapters not zero."""
    model = tiny(name).bfloat16()
    if not pack_linears(model):
        pytest.skip("this build of torch has no packed products")
    config = LoraConfig(**{"r": 4, "target_modules": ALL} | lora)
    adapted = attach_lora(model, config, 0)
    random = torch.Generator().manual_seed(1)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(std=0.1, generator=random)
    prepare_for_layout(model, layout)
    return adapted.train(), model


def batch(layout: Layout = Layout.shared_prefix) -> Batch:
    head = tuple(range(20))
    rows = [Rendered((*head, 30 + i), tuple(range(40, 44 + 3 * i))) for i in range(3)]
    return collate(rows, ["a", "b", "c"], layout, LossOn.completion)


def loss_and_gradients(
    adapted: nn.Module, model: PreTrainedModel, made: Batch
) -> tuple[float, dict[str, Tensor]]:
    for parameter in adapted.parameters():
        parameter.grad = None
    loss = batch_loss(model, made)
    loss.backward()
    named = adapted.named_parameters()
    return float(loss.detach()), {name: each.grad for name, each in named if each.grad is not None}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per layer that was computed as one function."""
    calls: list[int] = []
    own = fused.run_layer

    def counted(*arguments: Any) -> Tensor:
        calls.append(1)
        return own(*arguments)

    monkeypatch.setattr(fused, "run_layer", counted)
    return calls


@pytest.mark.parametrize("targets", [ALL, ["q_proj", "v_proj"], ["o_proj", "down_proj"]])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral"])
def test_loss_and_gradients_are_those_of_the_layers_of_modules(
    name: str, targets: list[str], tiny: Tiny, computed: list[int]
) -> None:
    adapted, model = prepared(tiny, name, target_modules=targets)
    loss, gradients = loss_and_gradients(adapted, model, batch())
    assert not computed
    assert fuse_layers(model) == 2
    for _ in range(2):  # the first call compares, the second does not
        found, others = loss_and_gradients(adapted, model, batch())
        assert found == pytest.approx(loss, rel=1e-2)
        assert others.keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert float((others[key] - gradient).norm() / gradient.norm()) < 0.1, key
    assert len(computed) == 6


def test_two_passes_give_the_same_bytes(tiny: Tiny) -> None:
    adapted, model = prepared(tiny)
    fuse_layers(model)
    loss_and_gradients(adapted, model, batch())
    first, gradients = loss_and_gradients(adapted, model, batch())
    second, others = loss_and_gradients(adapted, model, batch())
    assert first == second
    assert all(torch.equal(gradients[key], others[key]) for key in gradients)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gemma2", "granite"])
def test_layers_that_were_not_read_are_left_alone(name: str, tiny: Tiny) -> None:
    _, model = prepared(tiny, name)
    assert fuse_layers(model) == 0


def test_adapters_of_another_kind_leave_their_layers_alone(tiny: Tiny) -> None:
    for settings in ({"dropout": 0.1}, {"dora": True}):
        _, model = prepared(tiny, **settings)
        assert fuse_layers(model) == 0


def test_plain_weights_leave_their_layers_alone(tiny: Tiny) -> None:
    model = tiny("llama")
    attach_lora(model, LoraConfig(r=4, target_modules=ALL), 0)
    assert fuse_layers(model) == 0


def test_what_is_not_training_over_a_stream_is_computed_by_modules(
    tiny: Tiny, computed: list[int]
) -> None:
    adapted, model = prepared(tiny)
    fuse_layers(model)
    with torch.no_grad():
        batch_loss(model, batch())
    adapted.merge_adapter()  # type: ignore[operator]
    batch_loss(model, batch())
    adapted.unmerge_adapter()  # type: ignore[operator]
    with adapted.disable_adapter():  # type: ignore[operator]
        batch_loss(model, batch())
    prepare_for_layout(model, Layout.padded)
    loss_and_gradients(adapted, model, batch(Layout.padded))
    assert not computed


def test_recomputed_layers_are_computed_by_modules(tiny: Tiny, computed: list[int]) -> None:
    adapted, model = prepared(tiny)
    fuse_layers(model)
    enable_checkpointing(model)
    loss_and_gradients(adapted, model, batch())
    assert not computed


def test_large_scores_are_not_materialised(
    tiny: Tiny, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted, model = prepared(tiny)
    fuse_layers(model)
    monkeypatch.setattr(fused, "MATERIALISED_SCORES_BYTES", 100)
    loss_and_gradients(adapted, model, batch())
    assert not computed


def test_a_layer_that_computes_something_else_keeps_its_own_forward_and_says_so(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    adapted, model = prepared(tiny)
    loss, gradients = loss_and_gradients(adapted, model, batch())
    fuse_layers(model)
    own = fused.run_layer
    monkeypatch.setattr(fused, "run_layer", lambda *arguments: own(*arguments) * 1.5)
    with caplog.at_level(logging.WARNING):
        found, others = loss_and_gradients(adapted, model, batch())
    assert found == loss
    assert all(torch.equal(gradients[key], others[key]) for key in gradients)
    assert [record.message.split(" is off")[0] for record in caplog.records] == [
        "LlamaDecoderLayer as one function"
    ] * 2


def test_weights_are_packed_once(tiny: Tiny) -> None:
    adapted, model = prepared(tiny)
    fuse_layers(model)
    loss_and_gradients(adapted, model, batch())
    layer = model.model.layers[0].self_attn.q_proj.base_layer
    assert "_packs" not in layer.__dict__
    with torch.no_grad():
        batch_loss(model, batch())
    assert layer.__dict__["_joint_product"]._packs._forward is None
    loss_and_gradients(adapted, model, batch())
    assert "_packs" not in layer.__dict__
