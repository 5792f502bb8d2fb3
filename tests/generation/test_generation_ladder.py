from dataclasses import replace

import pytest

from exp.errors import ModelError
from exp.generation.benchmark import measure
from exp.generation.benchmark.ladder import LADDER
from exp.generation.benchmark.measure import Measurement, rows_of
from exp.generation.benchmark.summary import summarise
from exp.generation.row import Completion
from exp.model.base import Storage
from exp.training.benchmark.rotation import NotMeasured
from exp.training.benchmark.spread import Spread


def test_the_base_is_measured_in_the_storage_that_was_asked_for(cpu_hardware, monkeypatch):
    asked = []

    def load_base(model, files, precision, seed, storage):
        asked.append(storage)
        raise ModelError("seen enough")

    monkeypatch.setattr(measure, "load_base", load_base)
    monkeypatch.setattr(measure, "apply_to_process", lambda hardware: None)
    hardware = replace(cpu_hardware, quantization="nf4")
    job = measure.Job(None, None, hardware, 0, None, None, [], None, None)
    assert measure.measure_rung(job, LADDER[0]) == NotMeasured("seen enough")
    assert asked == [Storage("nf4", "cpu")]


@pytest.mark.parametrize("number", [1, 7, 64, 1000])
def test_each_rung_decodes_its_share_of_different_rows(number):
    for rung in LADDER:
        rows = rows_of(rung, number)
        assert len(rows) == len(set(rows)) == max(1, round(rung.row_share * number))
        assert set(rows) <= set(range(number))


def test_names_are_unique_and_the_reference_is_among_them():
    names = [rung.name for rung in LADDER]
    assert len(set(names)) == len(names)
    assert "merged" in names


def test_figures_are_medians_over_the_repetitions():
    rung = LADDER[0]
    rows = {0: Completion((1, 2), "stop"), 1: Completion((3,) * 4, "length")}
    done = [Measurement(seconds, 100, rows) for seconds in (1.0, 4.0, 2.0)]
    (summary,) = summarise({rung: done}, reference=rung.name)
    assert summary.rows_per_second == Spread(1.0, 0.5, 2.0)
    assert summary.tokens_per_second == Spread(3.0, 1.5, 6.0)
    assert (summary.num_cut, summary.same) == (1, 1.0)


def test_equal_ids_are_counted_on_the_rows_that_both_have():
    some, other = Completion((1,), "stop"), Completion((2,), "stop")
    measured = {
        LADDER[0]: [Measurement(1.0, None, {0: some, 1: some, 2: some})],
        LADDER[1]: [Measurement(1.0, None, {1: some, 2: other})],
    }
    summaries = summarise(measured, reference=LADDER[0].name)
    assert [summary.same for summary in summaries] == [1.0, 0.5]
    assert summaries[1].peak_bytes is None
