import pytest

from exp.training.benchmark import turns
from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import NotMeasured, measure_gemm, measure_rung


@pytest.fixture
def order(monkeypatch):
    """What was asked of fresh processes, in order; the second rung dies at its second turn."""
    calls = []

    def pretend(function, *arguments):
        if function is measure_gemm:
            return 1e9
        rung = arguments[1]
        calls.append(rung)
        if rung is LADDER[1] and calls.count(rung) == 2:
            raise turns.BrokenProcessPool
        return NotMeasured("no") if rung is LADDER[2] else f"{rung.name} {calls.count(rung)}"

    monkeypatch.setattr(turns, "_in_fresh_process", pretend)
    return calls


def test_rungs_take_turns_and_the_ones_that_fail_are_not_tried_again(order):
    seen = []
    done = turns.measure_in_turns(None, LADDER[:4], 3, lambda *all_of_it: seen.append(all_of_it))
    a, b, c, d = LADDER[:4]
    assert order == [a, b, c, d, a, b, d, a, d]
    assert done.measured == {rung: tuple(f"{rung.name} {i}" for i in (1, 2, 3)) for rung in (a, d)}
    assert done.not_measured[c] == "no"
    assert "memory" in done.not_measured[b]
    assert len(seen) == len(order)
    assert done.gemm_peaks == (1e9, 1e9, 1e9)


@pytest.mark.slow
def test_a_fresh_process_measures_what_this_one_does(job):
    fresh = turns._in_fresh_process(measure_rung, job, LADDER[0])
    here = measure_rung(job, LADDER[0])
    assert fresh.loss == pytest.approx(here.loss, rel=1e-6)
    assert fresh.peak_bytes > 0
