from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from exp.config.schema import Layout, LossOn, Precision
from exp.data.batch import collate
from exp.training.benchmark import measure
from exp.training.benchmark.full_logits import IGNORED, token_labels
from exp.training.benchmark.gemm_peak import measure_gemm_peak
from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import Measurement, measure_rung
from exp.training.benchmark.rotation import NotMeasured

EAGER = [rung for rung in LADDER if not rung.packed_weights]
PACKED = next(rung for rung in LADDER if rung.packed_weights)


@pytest.fixture
def measured(job):
    return {rung.name: measure_rung(job, rung) for rung in EAGER}


@pytest.mark.thorough
def test_all_rungs_do_the_same_work_and_reach_the_same_loss_and_gradient(measured):
    first = measured["padded"]
    for name, other in measured.items():
        assert isinstance(other, Measurement), (name, other)
        assert other.loss == pytest.approx(first.loss, rel=1e-5), name
        assert other.gradient_norm == pytest.approx(first.gradient_norm, rel=1e-5), name
        assert other.useful_flops == first.useful_flops
        assert (other.examples, other.own_tokens) == (6, first.own_tokens)
        assert other.seconds > 0


def test_other_rows_give_another_loss(job):
    rung = EAGER[-1]
    ids = job.store.ids.copy()
    ids[:200] = 5
    changed = replace(job, store=replace(job.store, ids=ids))
    assert measure_rung(changed, rung).loss != pytest.approx(measure_rung(job, rung).loss, rel=1e-3)


@pytest.mark.thorough
def test_a_layout_that_the_model_does_not_have_is_not_measured(job):
    architecture = {**job.config.model.architecture, "model_type": "mistral", "sliding_window": 16}
    model = replace(job.config.model, architecture=architecture)
    windowed = replace(job, config=replace(job.config, model=model))
    outcomes = {rung.name: measure_rung(windowed, rung) for rung in EAGER}
    refused = {name for name, one in outcomes.items() if isinstance(one, NotMeasured)}
    assert refused == {"packed", "shared_prefix"}
    assert "window" in outcomes["packed"].reason


@pytest.mark.thorough
def test_weights_are_packed_in_bf16_alone(job):
    assert isinstance(measure_rung(job, PACKED), NotMeasured)
    bf16 = replace(job, hardware=replace(job.hardware, precision=Precision.bf16))
    expected, packed = measure_rung(bf16, EAGER[-1]), measure_rung(bf16, PACKED)
    if isinstance(packed, NotMeasured):
        pytest.skip("this torch has no packed products for the machine")
    assert packed.loss == pytest.approx(expected.loss, rel=1e-2)


@pytest.mark.slow
# Raised inside the tracer, and only when warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_layers_reach_the_same_loss_and_gradient(job):
    job = replace(job, config=replace(job.config, lora=replace(job.config.lora, dropout=0.0)))
    expected, compiled = (measure_rung(job, rung) for rung in (EAGER[-1], LADDER[-1]))
    assert isinstance(compiled, Measurement), compiled
    assert compiled.loss == pytest.approx(expected.loss, rel=1e-5)
    assert compiled.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("tried to allocate"), "out of memory"),
        (AssertionError("no compiler\nat all"), "torch.compile failed: no compiler at all"),
    ],
)
def test_a_rung_that_fails_says_why(job, monkeypatch, error, reason):
    monkeypatch.setattr(measure, "compiled", Mock(side_effect=error))
    assert measure_rung(job, LADDER[-1]) == NotMeasured(reason)


def test_an_error_of_ours_is_not_taken_for_one_of_the_compiler(job, monkeypatch):
    monkeypatch.setattr(measure, "compiled", Mock(side_effect=AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        measure_rung(job, LADDER[0])


def test_labels_stand_at_their_tokens_and_nowhere_else(job):
    rows = [job.store[row] for row in range(3)]
    batch = collate(rows, ["a", "b", "c"], Layout.padded, LossOn.completion)
    expected = torch.full_like(batch.input_ids, IGNORED)
    for index, row in enumerate(rows):
        start = len(row.prompt_ids)
        end = start + len(row.completion_ids)
        expected[index, start:end] = torch.tensor(row.completion_ids)
    assert torch.equal(token_labels(batch), expected)


@pytest.mark.thorough
def test_the_gemm_peak_is_plausible():
    assert 1e8 < measure_gemm_peak("cpu", torch.float32) < 1e14
