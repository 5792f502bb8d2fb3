"""Quantised bases are, everywhere, the linear layers of their decoded weights."""

import copy
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from exp.config.schema import Layout, LoraConfig, LossOn, ModelConfig, Precision
from exp.data.batch import collate
from exp.errors import ConfigError, ModelError
from exp.model.base import Storage, load_base
from exp.model.forward import choose_layout, prepare_for_layout
from exp.model.fused_lora import is_fused
from exp.model.lora import adapter_config, adapter_weights, attach_lora, load_lora
from exp.model.merge import is_merged_exactly, merge_for_good, merged_for_inference, scored_weights
from exp.model.quantization import (
    decoded_weight,
    is_quantized,
    quantize_in_place,
    serve_quantized,
)
from exp.model.source import ModelFiles
from exp.publish import publish_folder
from exp.records import Rendered
from exp.training.loss import batch_loss

pytestmark = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)

Tiny = Callable[..., Any]
SCHEMES = ("nf4", "int8")
# Blocks of 64 weights, and shapes that make no layer square.
WIDE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16}
ALL = LoraConfig(r=4, target_modules=["all-linear"])


def quantized(tiny: Tiny, scheme: str, name: str = "llama", **changes: Any) -> PreTrainedModel:
    model = quantize_in_place(tiny(name, **WIDE, **changes), scheme, "cpu")
    serve_quantized(model)
    model.requires_grad_(False)
    return model


def decoded(model: PreTrainedModel, reference: PreTrainedModel) -> PreTrainedModel:
    """Put the decoded weights into a plain model of the same architecture."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if is_quantized(module):
                layer: Any = reference.get_submodule(name)
                layer.weight.copy_(decoded_weight(module, torch.float32))
    return reference


def adapted(model: PreTrainedModel, config: LoraConfig = ALL) -> PeftModel:
    peft = attach_lora(model, config, seed=0)
    random = torch.Generator().manual_seed(1)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=random)
    return peft


ROWS = [
    Rendered((*range(20), 30 + i), tuple(range(40 + i, 44 + 2 * i)))
    for i in range(3)  # a shared prefix of 20, ragged completions
]


def loss_and_gradients(model: PeftModel, layout: Layout) -> tuple[float, dict[str, Tensor]]:
    base: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]
    prepare_for_layout(base, layout)
    batch = collate(ROWS, ("a", "b", "c"), layout, LossOn.completion)
    model.zero_grad()
    model.train()
    loss = batch_loss(base, batch)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[n] - t).norm() / t.norm()) for n, t in expected.items())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_and_its_gradient_are_those_of_the_decoded_weight(scheme: str, bias: bool) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 96, bias=bias)

        def get_output_embeddings(self) -> None:
            return None

    holder = Holder()
    before = holder.layer.weight.detach().clone()
    model: Any = quantize_in_place(holder, scheme, "cpu")  # type: ignore[arg-type]
    assert serve_quantized(model) == 1
    weight = decoded_weight(model.layer, torch.float32)
    assert 0 < float((weight - before).norm() / before.norm()) < (0.12 if scheme == "nf4" else 0.02)
    x = torch.randn(7, 64, requires_grad=True)
    found = model.layer(x)
    expected = functional.linear(x, weight, model.layer.bias)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(found, x, slope)
    torch.testing.assert_close(gradient, slope @ weight, rtol=0, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_evaluation_before_training_changes_nothing(
    tiny: Tiny, scheme: str, precision: torch.dtype
) -> None:
    """bitsandbytes' own 4-bit layer stops giving gradients once it was evaluated on a CPU."""
    fresh = adapted(quantize_in_place(tiny("llama", **WIDE).to(precision), scheme, "cpu"))
    serve_quantized(fresh)
    expected = loss_and_gradients(fresh, Layout.padded)
    with torch.inference_mode():
        evaluated = fresh.eval()(input_ids=torch.arange(12)[None]).logits
    with torch.no_grad():
        again = fresh.train()(input_ids=torch.arange(12)[None]).logits
    assert torch.equal(evaluated, again)
    found = loss_and_gradients(fresh, Layout.padded)
    assert found[0] == expected[0]
    assert relative(found[1], expected[1]) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "gemma3",
        *(pytest.param(n, marks=pytest.mark.thorough) for n in ("qwen2", "qwen3", "mistral")),
    ],
)
@pytest.mark.parametrize("layout", list(Layout))
def test_every_layout_gives_the_gradients_of_the_decoded_model(
    tiny: Tiny, scheme: str, name: str, layout: Layout
) -> None:
    model = quantized(tiny, scheme, name)
    reference = adapted(decoded(model, tiny(name, **WIDE)))
    assert choose_layout(model, layout, 30).layout is layout
    loss, gradients = loss_and_gradients(adapted(model), layout)
    expected_loss, expected = loss_and_gradients(reference, Layout.padded)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert relative(gradients, expected) <= 1e-5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_base_of_16_bits_is_probed_in_fp32(
    tiny: Tiny, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 16 bits, rounding over thirty quantised layers looks like a wrong mask."""
    from exp.model import forward

    model = quantize_in_place(tiny("qwen3", **WIDE).to(torch.bfloat16), scheme, "cpu")
    seen = []
    original = forward.label_states

    def watching(*args: Any) -> Tensor:
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(forward, "label_states", watching)
    assert choose_layout(model, Layout.shared_prefix, 30).layout is Layout.shared_prefix
    assert [states.dtype for states in seen] == [torch.float32] * 2
    assert float((seen[1] - seen[0]).norm() / seen[0].norm()) < 1e-5
    assert not any("forward" in m.__dict__ for m in model.modules() if is_quantized(m))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_fused_adapter_is_pefts_own(tiny: Tiny, scheme: str) -> None:
    model = quantized(tiny, scheme)
    plain = attach_lora(copy.deepcopy(model), ALL, seed=0, fuse=False)
    serve_quantized(plain)
    fused = adapted(model)
    torch.manual_seed(3)
    for (left, a), (right, b) in zip(
        fused.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert left == right
        if "lora_" in left:
            b.data.copy_(a.data)
    found = loss_and_gradients(fused, Layout.padded)
    expected = loss_and_gradients(plain, Layout.padded)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert relative(found[1], expected[1]) <= 1e-5
    base: Any = fused.get_base_model()
    assert is_fused(base.model.layers[0].self_attn.q_proj)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantised_base_is_never_merged(tiny: Tiny, scheme: str) -> None:
    model = adapted(quantized(tiny, scheme)).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with merged_for_inference(model):
            within = model(input_ids=ids).logits
        merge_for_good(model)
        after = model(input_ids=ids).logits
        bare = model.get_base_model()(input_ids=ids).logits
    assert torch.equal(within, expected)
    assert torch.equal(after, expected)
    assert torch.equal(bare, expected)
    assert not is_merged_exactly(model)


@pytest.mark.parametrize("scheme", ["none", *SCHEMES])
@pytest.mark.parametrize("dora", [False, True])
def test_what_is_said_of_scored_weights_is_so(tiny: Tiny, scheme: str, dora: bool) -> None:
    config = LoraConfig(r=4, target_modules=["all-linear"], dora=dora)
    model = attach_lora(quantized(tiny, scheme), config, seed=0)
    said = str(scored_weights(scheme, Precision.bf16, config).value)
    assert ("merged into" in said) == is_merged_exactly(model)
    assert (scheme in said) == (scheme != "none")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_adapter_reloads_exactly(tiny: Tiny, scheme: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = adapted(quantized(tiny, scheme)).eval()
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(adapter_weights(model), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(model, "tiny")))
    reloaded = load_lora(quantized(tiny, scheme), folder).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(reloaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    with publish_folder(target) as staging:
        tiny("llama", **WIDE).to(torch.bfloat16).save_pretrained(staging)
    return target


def load(folder: Path | None, quantization: str, **config: Any) -> PreTrainedModel:
    files = ModelFiles(folder, "test")
    return load_base(
        ModelConfig(name="tiny", **config), files, Precision.bf16, 0, Storage(quantization)
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_files_are_quantised_while_they_are_read(tiny: Tiny, folder: Path, scheme: str) -> None:
    model = load(folder, scheme)
    expected = quantize_in_place(tiny("llama", **WIDE).to(torch.bfloat16), scheme, "cpu")
    names = [name for name, module in model.named_modules() if is_quantized(module)]
    assert len(names) == 14  # seven per layer, and not the head
    for name in names:
        left = decoded_weight(model.get_submodule(name), torch.bfloat16)
        assert torch.equal(left, decoded_weight(expected.get_submodule(name), torch.bfloat16))
    assert model.dtype is torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())
    if scheme == "nf4":
        layers: list[Any] = [model.get_submodule(name) for name in names]
        assert all(layer.weight.quant_state.nested for layer in layers)


@pytest.mark.parametrize(
    ("stored", "asked", "fix"),
    [
        ({"quant_method": "gptq", "bits": 4}, "none", "quantization=gptq"),
        ({"quant_method": "gptq", "bits": 4}, "nf4", "quantization=gptq"),
        ({"quant_method": "awq", "bits": 4}, "gptq", "quantization=awq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "nf4", "quantization=int8"),
        ({"quant_method": "fp8"}, "none", "quantization=nf4 or int8"),
        (None, "gptq", "quantization=none"),
        (None, "awq", "quantization=none"),
    ],
)
def test_files_of_another_storage_are_refused(
    folder: Path, stored: dict[str, Any] | None, asked: str, fix: str
) -> None:
    file = folder / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content if stored is None else {**content, **_config(stored)}))
    with pytest.raises(ModelError) as caught:
        load(folder, asked)
    assert fix in str(caught.value.fix)


def _config(stored: dict[str, Any]) -> dict[str, Any]:
    return {"quantization_config": stored}


def test_random_weights_are_quantised_too() -> None:
    architecture = {"model_type": "llama", "vocab_size": 61, "num_hidden_layers": 1, **WIDE}
    model = load(None, "nf4", architecture=architecture)
    assert sum(map(is_quantized, model.modules())) == 7
    assert type(model.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_starts_that_change_the_base_are_refused(tiny: Tiny, init: str) -> None:
    config = LoraConfig(r=4, target_modules=["all-linear"], init=init)
    with pytest.raises(ConfigError, match="rounding them anew"):
        attach_lora(quantized(tiny, "nf4"), config, seed=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_input_without_tokens_is_served(tiny: Tiny, scheme: str) -> None:
    layer = quantized(tiny, scheme).model.layers[0].mlp.gate_proj
    assert layer(torch.zeros(0, 64)).shape == (0, 96)
