"""From the files of a run to facts; the advice itself is tested where it is given."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exp.commands.advising import find_improvements, measure_score, measure_speed
from exp.config.schema import Layout, TrainConfig
from exp.data.plan import BatchPlan
from exp.hardware.resolver import ResolvedHardware
from exp.model.lora import attach_lora
from exp.rundir import RunDir


@pytest.fixture
def plan() -> BatchPlan:
    numpy = pytest.importorskip("numpy")
    return BatchPlan(
        lengths=numpy.full(12, 10),
        num_labels=numpy.full(12, 4),
        shared_tokens=6,
        layout=Layout.shared_prefix,
        batch_size=4,
        micro_batch_tokens=1000,
        micro_batch_size=None,
        epochs=2.0,
        max_steps=None,
        seed=0,
    )


def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=None,
    )
    return attach_lora(LlamaForCausalLM(config), TrainConfig().lora, seed=0)


def test_the_share_of_the_peak_is_that_of_a_plain_count(
    plan: BatchPlan, cpu_hardware: ResolvedHardware
) -> None:
    adapted = model()
    # q, k, v, o of one layer: 8x8, 8x4, 8x4, 8x8; gate, up and down: 3 times 8x16.
    frozen, head, width = 2 * 64 + 2 * 32 + 3 * 128, 8 * 32, 8
    adapters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    tokens, labels = 6 + 4 * 4, 4 * 4
    pairs = 6 * 7 / 2 + 4 * (4 * 6 + 4 * 5 / 2)
    step = (4 * frozen + 6 * adapters) * tokens + 12 * width * pairs + 4 * head * labels
    gpu = replace(cpu_hardware, peak_tflops=0.001, devices=2, expected_flop_share=0.5)
    curves = {"train/examples_per_second": [(1, 1.0), (2, 40.0), (3, 400.0)]}
    facts = measure_speed(curves, gpu, adapted, plan)
    assert facts.useful_flop_share == pytest.approx(step / 4 * 40 / (0.001e12 * 2))
    assert not facts.fills_micro_batch
    cut = measure_speed(curves, gpu, adapted, replace(plan, micro_batch_size=2))
    assert cut.fills_micro_batch


def test_nothing_is_counted_where_no_peak_is_known(
    plan: BatchPlan, cpu_hardware: ResolvedHardware
) -> None:
    curves = {"train/examples_per_second": [(1, 5.0)], "train/data_wait_share": [(1, 0.25)]}
    facts = measure_speed(curves, cpu_hardware, None, plan)  # type: ignore[arg-type]
    assert facts.useful_flop_share is None
    assert facts.data_wait_share == 0.25


def write_predictions(folder: Path, rows: list[dict]) -> RunDir:
    run = RunDir(folder)
    path = run.predictions("validation")
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


def test_scores_are_read_off_the_files_of_the_run(tmp_path: Path) -> None:
    kinds = [("length", ["cut"]), ("stop", ["unparsable"]), ("stop", ["wrong_value"]), ("stop", [])]
    run = write_predictions(
        tmp_path, [{"finish_reason": reason, "errors": errors} for reason, errors in kinds]
    )
    curves = {
        "val/field_f1": [(1, 0.2), (2, 0.6), (3, 0.5)],
        "train/loss": [(step, float(step > 4)) for step in range(10)],
    }
    audit = {"rows": {"train": 50}, "warnings": {"train/conflict": 5, "test/conflict": 9}}
    facts = measure_score(curves, run, audit, "field_f1")
    assert (facts.best_score, facts.last_score, facts.improved_at_the_end) == (0.6, 0.5, False)
    assert (facts.cut_share, facts.invalid_share) == (0.25, 0.25)
    assert (facts.train_loss, facts.noise_share) == (1.0, 0.1)


def test_a_run_without_validation_has_no_facts_and_no_advice(
    tmp_path: Path, plan: BatchPlan, cpu_hardware: ResolvedHardware
) -> None:
    run = RunDir(tmp_path)
    run.record.write_text("{}")
    facts = measure_score({}, run, {}, "field_f1")
    assert facts.best_score is None
    assert find_improvements(run, TrainConfig(), cpu_hardware, None, plan) == []  # type: ignore[arg-type]


def test_a_low_score_is_told_with_its_figures(
    tmp_path: Path, plan: BatchPlan, cpu_hardware: ResolvedHardware
) -> None:
    run = RunDir(tmp_path)
    run.record.write_text("{}")
    points = [{"val/field_f1": 0.5}, {"val/field_f1": 0.4, "train/loss": 0.125}]
    run.metrics.write_text(
        "".join(
            json.dumps({"step": step, "epoch": 0, "time": 0.0, "values": values}) + "\n"
            for step, values in enumerate(points)
        )
    )
    (found,) = find_improvements(run, TrainConfig(), cpu_hardware, None, plan)  # type: ignore[arg-type]
    assert found.what == (
        "Low score: field_f1 reached 0.500 in validation; the training loss came to 0.125 nats per "
        "label, and the score fell to 0.400 at the end"
    )
    assert found.advice[0].typed == "lora.dropout=0.1"
