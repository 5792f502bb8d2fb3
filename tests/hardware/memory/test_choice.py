"""Settings that fit are found, the ones that cost least speed first, and each with its reason."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exp.config.schema import Layout, LoraConfig, Precision
from exp.data.plan import BatchPlan
from exp.hardware.memory.choice import Choice, Wanted, budget_bytes, choose, with_tokens
from exp.hardware.memory.micro_batch import largest_forwards
from exp.hardware.memory.phases import NF4_BYTES, Request, base_bytes, predict
from exp.hardware.memory.sizes import read_sizes

ONE_BILLION: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50_000,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
WANTED = Wanted(most_tokens=65536, checkpointing=None)


def request(batch_size: int = 64, **changes: Any) -> Request:
    lengths = np.full(256, 700)
    plan = BatchPlan(
        lengths=lengths,
        num_labels=np.full(256, 100),
        shared_tokens=200,
        layout=Layout.shared_prefix,
        batch_size=batch_size,
        micro_batch_tokens=8192,
        micro_batch_size=None,
        epochs=1.0,
        max_steps=None,
        seed=0,
    )
    settings: dict[str, Any] = {
        "sizes": read_sizes(ONE_BILLION, "one billion"),
        "lora": LoraConfig(target_modules=["all-linear"]),
        "optimizer": "adamw",
        "precision": Precision.bf16,
        "plan": plan,
        "prompt_tokens": 400,
        "max_new_tokens": 150,
        "slots": 8,
        "on_cpu": False,
        "packed": False,
    }
    return Request(**settings | changes)


def chosen(gib: float, wanted: Wanted = WANTED, **changes: Any) -> Choice:
    return choose(request(**changes), wanted, gib)


def test_with_room_enough_a_step_is_one_forward_without_checkpointing() -> None:
    choice = chosen(500)
    assert choice.fits
    assert choice.settings.micro_batch_tokens == 65536
    assert not choice.settings.checkpointing
    assert choice.prediction.largest.alone


def test_less_room_first_takes_smaller_forwards_then_checkpointing() -> None:
    seen: list[tuple[bool, int]] = []
    for gib in (500, 60, 40, 20, 12, 8, 6, 5, 4):
        choice = chosen(gib, lora=LoraConfig(target_modules=["q_proj", "v_proj"]))
        assert choice.fits
        settings = choice.settings
        pair = (settings.checkpointing, settings.micro_batch_tokens)
        if pair not in seen:
            seen.append(pair)
    assert seen == [
        *((False, tokens) for tokens in (65536, 16384, 8192, 4096, 2048)),
        *((True, tokens) for tokens in (8192, 4096)),
    ]


@pytest.mark.parametrize("gib", [500, 40, 20, 12, 9])
def test_what_is_said_to_fit_fits(gib: float) -> None:
    choice = chosen(gib)
    assert choice.fits == (choice.prediction.peak <= budget_bytes(gib, on_cpu=False))


def test_the_step_keeps_its_examples_whatever_is_chosen() -> None:
    wanted = request()
    small = with_tokens(wanted.plan, choose(wanted, WANTED, 12).settings.micro_batch_tokens)
    for number in range(wanted.plan.num_steps):
        before, after = wanted.plan.step(number), small.step(number)
        assert before.num_labels == after.num_labels
        assert sum(before.micro_batches, ()) == sum(after.micro_batches, ())


def test_where_nothing_fits_the_least_is_shown_and_said_so() -> None:
    choice = chosen(3)
    assert not choice.fits
    assert "still more than" in choice.reasons[0].reason


def test_a_base_is_quantised_only_where_that_is_allowed_and_needed() -> None:
    allowed = replace(WANTED, quantizations=("none", "nf4"))
    assert chosen(4.3, allowed).settings.quantization == "nf4"
    assert chosen(4.3).settings.quantization == "none"
    assert chosen(500, allowed).settings.quantization == "none"


def test_what_is_set_stays_set() -> None:
    choice = chosen(500, Wanted(most_tokens=1000, checkpointing=True))
    assert (choice.settings.micro_batch_tokens, choice.settings.checkpointing) == (1000, True)
    assert not chosen(3, Wanted(most_tokens=1000, checkpointing=False)).settings.checkpointing


def test_every_choice_has_a_reason() -> None:
    for gib in (500, 12, 3):
        reasons = {reason.name: reason.reason for reason in chosen(gib).reasons}
        assert {"training.micro_batch_tokens", "training.gradient_checkpointing"} <= set(reasons)
        assert all(reasons.values())


def test_the_peak_is_that_of_the_largest_phase() -> None:
    prediction = chosen(500).prediction
    assert prediction.peak == max(phase.total for phase in prediction.phases)
    assert {phase.name for phase in prediction.phases} == {"load", "training", "validation"}
    assert prediction.peak_phase.total == sum(prediction.peak_phase.parts.values())


def test_packed_copies_double_the_linear_weights_twice() -> None:
    plain, packed = request(on_cpu=True), request(on_cpu=True, packed=True)
    totals = []
    for each in (plain, packed):
        forwards = largest_forwards(each.plan)
        prediction = predict(each, forwards, checkpointing=False, quantization="none")
        totals.append(next(p for p in prediction.phases if p.name == "training").total)
    weights = plain.sizes.linear_weights + plain.sizes.embedding
    assert totals[1] - totals[0] == 2 * weights * 2


def test_nf4_takes_half_a_byte_and_its_scales() -> None:
    sizes = read_sizes(ONE_BILLION, "x")
    plain, nf4, int8 = (base_bytes(sizes, 2, kind) for kind in ("none", "nf4", "int8"))
    rest = 2 * (sizes.embedding + sizes.vectors)
    assert plain == rest + 2 * sizes.linear_weights
    assert nf4 == pytest.approx(rest + sizes.linear_weights * NF4_BYTES)
    assert pytest.approx(0.5159, abs=1e-4) == NF4_BYTES
    assert nf4 < base_bytes(sizes, 2, "gptq") < int8 < plain
