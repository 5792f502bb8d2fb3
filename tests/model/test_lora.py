import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import LoraConfig
from exp.errors import CheckpointError, ConfigError, UserErrors
from exp.model.lora import (
    adapter_config,
    adapter_weights,
    attach_lora,
    load_lora,
    set_adapter_weights,
)

Tiny = Callable[..., PreTrainedModel]

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 58]])
ALL = ["all-linear"]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"rank_stabilized": True},
    "dora": {"dora": True},
    "gaussian": {"init": "gaussian"},
    "orthogonal": {"init": "orthogonal"},
    "pissa": {"init": "pissa"},
    "pissa, rank-stabilised": {"init": "pissa", "rank_stabilized": True},
    "olora": {"init": "olora"},
    "olora, ranks by layer": {
        "init": "olora",
        "peft": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    },
    "with a head": {"peft": {"modules_to_save": ["lm_head"]}},
}


def train(model: PeftModel, steps: int = 3) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    model.eval()


def write_folder(model: PeftModel, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(adapter_weights(model), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(model, "tiny")))
    return folder


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    logits: Tensor = model(input_ids=IDS).logits
    return logits


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.thorough
def test_a_trained_adapter_comes_back_from_its_folder(
    tiny: Tiny, variant: str, tmp_path: Path
) -> None:
    def base() -> PreTrainedModel:
        return tiny("llama", tie_word_embeddings=False)

    config = LoraConfig(r=4, alpha=6, target_modules=ALL, **VARIANTS[variant])
    model = attach_lora(base(), config, seed=0)
    at_start = logits_of(model.eval())
    # Whatever the start, an untrained adapter must not change what the base says.
    assert relative(at_start, logits_of(base())) < 1e-5
    train(model)
    expected = logits_of(model)
    assert relative(expected, at_start) > 1e-2
    folder = write_folder(model, tmp_path / "adapter")
    ours = logits_of(load_lora(base(), folder).eval())
    plain = logits_of(PeftModel.from_pretrained(base(), folder).eval())
    if config.init in ("pissa", "olora"):
        # The base's residual, W - B0 A0, was rounded once in training and is not here.
        assert relative(ours, expected) < 1e-5
        assert relative(plain, expected) < 1e-5
    else:
        assert torch.equal(ours, expected)
        assert relative(plain, expected) < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.thorough
def test_training_goes_on_exactly_from_stored_weights(tiny: Tiny, variant: str) -> None:
    config = LoraConfig(r=4, alpha=6, target_modules=ALL, **VARIANTS[variant])
    changes = {"tie_word_embeddings": False}
    model = attach_lora(tiny("llama", **changes), config, seed=0)
    train(model)
    stored = adapter_weights(model)
    again = attach_lora(tiny("llama", **changes), config, seed=0)
    set_adapter_weights(again, stored, "here")
    assert torch.equal(logits_of(again.eval()), logits_of(model))
    train(model)
    train(again)
    for name, tensor in adapter_weights(model).items():
        assert torch.equal(adapter_weights(again)[name], tensor), name


FRESH_PROCESS = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from exp.model.lora import load_lora
from pathlib import Path
base, adapter, out = map(Path, sys.argv[1:])
ids = torch.load(out / "ids.pt")
def logits(wrap):
    model = wrap(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits
torch.save(logits(lambda model: load_lora(model, adapter)), out / "ours.pt")
torch.save(logits(lambda model: PeftModel.from_pretrained(model, adapter)), out / "peft.pt")
"""


@pytest.mark.thorough
def test_a_fresh_process_computes_the_same_logits(tiny: Tiny, tmp_path: Path) -> None:
    base = tiny("qwen3")
    base.save_pretrained(tmp_path / "base")
    model = attach_lora(base, LoraConfig(r=4, target_modules=ALL), seed=0)
    train(model)
    expected = logits_of(model)
    write_folder(model, tmp_path / "adapter")
    torch.save(IDS, tmp_path / "ids.pt")
    folders = [str(tmp_path / "base"), str(tmp_path / "adapter"), str(tmp_path)]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *folders], check=True, timeout=300)
    assert torch.equal(torch.load(tmp_path / "ours.pt"), expected)
    assert relative(torch.load(tmp_path / "peft.pt"), expected) < 1e-6


def spoil_by_removing(weights: dict[str, Tensor]) -> None:
    weights.pop(next(iter(weights)))


def spoil_by_renaming(weights: dict[str, Tensor]) -> None:
    name = next(iter(weights))
    weights[name.replace("base_model.model.", "base_model.model._orig_mod.")] = weights.pop(name)


def spoil_by_adding(weights: dict[str, Tensor]) -> None:
    weights["base_model.model.extra.lora_A.weight"] = torch.zeros(4, 32)


def spoil_by_cutting(weights: dict[str, Tensor]) -> None:
    name = next(iter(weights))
    weights[name] = weights[name][:-1].contiguous()


@pytest.mark.parametrize(
    "spoil", [spoil_by_removing, spoil_by_renaming, spoil_by_adding, spoil_by_cutting]
)
def test_weights_that_do_not_fit_exactly_are_refused(
    tiny: Tiny, spoil: Callable[[dict[str, Tensor]], None], tmp_path: Path
) -> None:
    model = attach_lora(tiny("llama"), LoraConfig(r=4, target_modules=ALL), seed=0)
    folder = write_folder(model, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    spoil(weights)
    save_file(weights, folder / "adapter_model.safetensors")
    before = adapter_weights(model)
    with pytest.raises(CheckpointError, match="does not fit"):
        set_adapter_weights(model, weights, "here")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_lora(tiny("llama"), folder)
    assert all(torch.equal(before[n], t) for n, t in adapter_weights(model).items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trainable_weights_are_fp32_on_a_base_of_16_bits(
    tiny: Tiny, dtype: torch.dtype, tmp_path: Path
) -> None:
    base = tiny("llama", tie_word_embeddings=False).to(dtype)
    config = LoraConfig(r=4, target_modules=ALL, peft={"modules_to_save": ["lm_head"]})
    model = attach_lora(base, config, seed=0)
    trainable = {n: p.dtype for n, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * 2 * 7 + 1
    assert set(trainable.values()) == {torch.float32}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert frozen == {dtype}
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    folder = write_folder(model, tmp_path / "adapter")
    loaded = load_lora(tiny("llama", tie_word_embeddings=False).to(dtype), folder)
    stored = adapter_weights(loaded)
    assert all(torch.equal(stored[n], t) for n, t in adapter_weights(model).items())


def test_small_updates_are_not_lost(tiny: Tiny) -> None:
    model = attach_lora(tiny("llama").bfloat16(), LoraConfig(r=4, target_modules=ALL), seed=0)
    before = adapter_weights(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    for _ in range(2):  # lora_A has no gradient while lora_B is zero
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    after = adapter_weights(model)
    changed = sum(int((after[n] != t).sum()) for n, t in before.items())
    assert changed / sum(t.numel() for t in before.values()) > 0.99


def test_the_adapter_s_start_follows_from_the_seed_alone(tiny: Tiny) -> None:
    config = LoraConfig(r=4, target_modules=ALL)
    first = adapter_weights(attach_lora(tiny("llama"), config, seed=1))
    torch.manual_seed(99)
    same = adapter_weights(attach_lora(tiny("llama"), config, seed=1))
    other = adapter_weights(attach_lora(tiny("llama"), config, seed=2))
    assert all(torch.equal(same[n], t) for n, t in first.items())
    assert not all(torch.equal(other[n], t) for n, t in first.items())


def test_the_attaching_leaves_the_random_state_alone(tiny: Tiny) -> None:
    base = tiny("llama")
    before = torch.get_rng_state()
    attach_lora(base, LoraConfig(r=4, target_modules=ALL), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("init", ["eva", "corda", "loftq", "lora_ga", "pissa_niter_4", "nonsense"])
def test_a_start_that_is_not_served_is_refused(tiny: Tiny, init: str) -> None:
    for config in (LoraConfig(init=init), LoraConfig(peft={"init_lora_weights": init})):
        with pytest.raises(ConfigError, match=f"lora.init={init} is not served"):
            attach_lora(tiny("llama"), config, seed=0)


def test_a_start_that_changes_the_base_is_refused_with_dora(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="no adapter file can hold both"):
        attach_lora(tiny("llama"), LoraConfig(init="pissa", dora=True), seed=0)


def test_targets_that_match_nothing_are_refused_by_name(tiny: Tiny) -> None:
    config = LoraConfig(target_modules=["q_proj", "kproj", "c_attn"])
    with pytest.raises(ConfigError, match="names kproj, c_attn") as caught:
        attach_lora(tiny("llama"), config, seed=0)
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("lora.target_modules=[down_proj,")


def test_a_tied_head_is_no_target(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="ties to its embeddings"):
        attach_lora(tiny("llama"), LoraConfig(target_modules=["q_proj", "lm_head"]), seed=0)


def test_all_mistakes_are_shown_together(tiny: Tiny) -> None:
    config = LoraConfig(target_modules=["kproj", "lm_head"], init="eva")
    with pytest.raises(UserErrors) as caught:
        attach_lora(tiny("llama"), config, seed=0)
    assert len(caught.value.errors) == 3


def test_an_unknown_field_of_peft_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="PEFT refuses"):
        attach_lora(tiny("llama"), LoraConfig(peft={"use_rslora_": True}), seed=0)


def test_all_linear_means_every_linear_layer_but_the_head(tiny: Tiny) -> None:
    model = attach_lora(tiny("qwen3"), LoraConfig(r=4, target_modules=ALL), seed=0)
    stored = adapter_config(model, "owner/base")
    assert stored["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert stored["base_model_name_or_path"] == "owner/base"


@pytest.mark.parametrize(
    ("peft", "what"),
    [
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save=embed_tokens"),
        ({"bias": "all"}, "bias=all"),
    ],
)
def test_parts_of_a_16_bit_base_are_not_trained(
    tiny: Tiny, peft: dict[str, Any], what: str
) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], peft=peft)
    with pytest.raises(ConfigError, match=f"lora.peft.{what} trains a part of the base"):
        attach_lora(tiny("qwen3").to(torch.bfloat16), config, seed=0)


def test_a_copy_of_the_head_is_trained_on_a_16_bit_base(tiny: Tiny) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], peft={"modules_to_save": ["lm_head"]})
    model = attach_lora(tiny("qwen3").to(torch.bfloat16), config, seed=0)
    assert any("lm_head" in n for n, p in model.named_parameters() if p.requires_grad)
