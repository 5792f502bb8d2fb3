"""Every advice is right for its facts, and whatever it names composes with the schema."""

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from exp.config.groups import open_library
from exp.config.preflight import preflight
from exp.config.schema import Accelerator, Precision, TrainConfig
from exp.hardware.resolver import ResolvedHardware
from exp.training.advice import (
    LARGER,
    Advice,
    ScoreFacts,
    SpeedFacts,
    advise_low_score,
    advise_out_of_memory,
    advise_slow,
)

LOW = ScoreFacts(best_score=0.5, last_score=0.5, train_loss=0.4)


@pytest.fixture
def gpu(cpu_hardware: ResolvedHardware) -> ResolvedHardware:
    return replace(
        cpu_hardware,
        name="a100",
        accelerator=Accelerator.cuda,
        precision=Precision.bf16,
        num_workers=2,
        peak_tflops=312.0,
        expected_flop_share=0.35,
    )


@cache
def config(*words: str) -> TrainConfig:
    (trial,) = preflight("train", words, open_library()).trials
    return trial.config  # type: ignore[no-any-return]


def typed(advice: list[Advice]) -> list[str]:
    return [one.typed for one in advice]


CONFIGS = [
    (
        *("hardware=t4x2", "training.micro_batch_size=8", "training.layout=padded"),
        *("training.gradient_checkpointing=true", "lora=baseline"),
    ),
    (
        *("hardware=t4", "training.steps=40", "training.micro_batch_size=2"),
        "generation.max_new_tokens=32",
    ),
]
SPEEDS = [
    SpeedFacts(0.1, 0.5, fills_micro_batch=True),
    SpeedFacts(0.1, 0.0, fills_micro_batch=False),
]
SCORES = [
    LOW,
    replace(LOW, train_loss=0.001),
    replace(LOW, improved_at_the_end=True, cut_share=0.2, invalid_share=0.2),
]


@pytest.mark.parametrize("words", CONFIGS)
@pytest.mark.thorough
def test_every_advised_override_composes_beside_what_was_asked_for(
    words: tuple[str, ...], gpu: ResolvedHardware
) -> None:
    asked = config(*words)
    advice = [
        *advise_out_of_memory(asked),
        *advise_out_of_memory(asked, quantize_to="nf4", num_tokens=900),
        *itertools.chain.from_iterable(advise_slow(asked, gpu, facts) for facts in SPEEDS),
        *itertools.chain.from_iterable(advise_low_score(asked, facts) for facts in SCORES),
    ]
    assert len(advice) > 10
    for override in dict.fromkeys(one.typed for one in advice):
        own = override.split()
        keys = {word.partition("=")[0] for word in own}
        kept = [word for word in words if word.partition("=")[0] not in keys]
        (trial,) = preflight("train", [*kept, *own], open_library()).trials
        assert trial.config != asked, override
        assert trial.warnings == (), override


def test_memory_is_first_sought_where_the_gradient_stays_the_same() -> None:
    advice = typed(advise_out_of_memory(config(), quantize_to="nf4"))
    assert advice[:3] == [
        "training.micro_batch_tokens=4096",
        "training.gradient_checkpointing=true",
        "quantization=nf4",
    ]


def test_an_example_that_does_not_fit_alone_is_not_cut_into_micro_batches() -> None:
    advice = typed(advise_out_of_memory(config(), num_tokens=1000))
    assert not [one for one in advice if "micro_batch" in one]
    assert "data.max_length_tokens=750 data.on_overlong=skip" in advice


def test_nothing_is_advised_that_is_set_already() -> None:
    asked = config(
        "training.gradient_checkpointing=true", "training.micro_batch_size=1", "lora.r=4"
    )
    assert typed(advise_out_of_memory(asked)) == []


def test_the_last_resort_of_a_gpu_is_memory_besides_its_own() -> None:
    advice = typed(advise_out_of_memory(config("hardware=t4x2")))
    assert "hardware.device_map=balanced" in advice[-2]
    assert "hardware.offload_gib" in advice[-1]


@pytest.mark.parametrize(
    ("facts", "slow"),
    [
        (SpeedFacts(), False),
        (SpeedFacts(useful_flop_share=0.4, data_wait_share=0.02), False),
        (SpeedFacts(useful_flop_share=0.34), True),
        (SpeedFacts(data_wait_share=0.11), True),
    ],
)
def test_a_run_that_is_as_fast_as_expected_gets_no_advice(
    facts: SpeedFacts, slow: bool, gpu: ResolvedHardware
) -> None:
    assert bool(advise_slow(config(), gpu, facts)) is slow


def test_waiting_for_data_asks_for_workers_and_not_for_faster_arithmetic(
    gpu: ResolvedHardware,
) -> None:
    advice = typed(advise_slow(config(), gpu, SpeedFacts(0.5, 0.4)))
    assert advice == ["hardware.num_workers=4", "hardware.prefetch_batches=4"]


def test_speed_is_not_judged_where_no_peak_is_known(gpu: ResolvedHardware) -> None:
    unknown: Any = replace(gpu, expected_flop_share=None)
    assert advise_slow(config(), unknown, SpeedFacts(useful_flop_share=0.01)) == []


def test_a_larger_batch_comes_last_since_it_changes_the_result(gpu: ResolvedHardware) -> None:
    advice = typed(advise_slow(config(), gpu, SpeedFacts(useful_flop_share=0.1)))
    assert advice[-1] == "training.batch_size=16"
    assert "training.compile=layers" in advice[:-1]


def test_a_good_score_gets_no_advice() -> None:
    assert advise_low_score(config(), replace(LOW, best_score=0.95)) == []


def test_label_noise_is_looked_at_before_anything_is_trained_again() -> None:
    advice = typed(advise_low_score(config(), replace(LOW, noise_share=0.05)))
    assert advice[0] == "exp audit task=orders_es"


def test_predictions_that_were_cut_or_invalid_are_mended_before_training() -> None:
    facts = replace(LOW, cut_share=0.3, invalid_share=0.3)
    asked = config("generation.max_new_tokens=32")
    advice = typed(advise_low_score(asked, facts))
    assert advice[:2] == ["generation.max_new_tokens=64", "generation.constrain=schema"]


@pytest.mark.parametrize(
    "facts",
    [replace(LOW, train_loss=0.001), replace(LOW, best_score=0.6, last_score=0.5)],
    ids=["known by heart", "fell at the end"],
)
def test_a_gap_between_training_and_validation_asks_for_less_capacity(facts: ScoreFacts) -> None:
    advice = typed(advise_low_score(config(), facts))
    assert {"augmentation=standard", "lora.dropout=0.1", "lora.r=8"} <= set(advice)
    assert not [one for one in advice if one.startswith("training.epochs")]


def test_where_wordings_vary_already_names_are_next() -> None:
    known = replace(LOW, train_loss=0.001)
    advice = typed(advise_low_score(config("augmentation=standard"), known))
    assert "augmentation.renaming=1" in advice
    assert "augmentation=standard" not in advice
    renamed = config("augmentation=standard", "augmentation.renaming=0.5")
    assert "augmentation.renaming=1" not in typed(advise_low_score(renamed, known))


def test_a_score_that_still_rose_asks_for_longer_training() -> None:
    advice = typed(advise_low_score(config(), replace(LOW, improved_at_the_end=True)))
    assert advice[0] == "training.epochs=2"
    assert "lora.r=32" in advice


def test_the_next_larger_models_are_there() -> None:
    assert {*LARGER, *LARGER.values()} <= set(open_library().choices["model"])
