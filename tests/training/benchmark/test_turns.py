import pytest

from exp.training.benchmark import rotation
from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import measure_gemm
from exp.training.benchmark.rotation import NotMeasured
from exp.training.benchmark.turns import measure_in_turns


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
            raise rotation.BrokenProcessPool
        return NotMeasured("no") if rung is LADDER[2] else f"{rung.name} {calls.count(rung)}"

    monkeypatch.setattr(rotation, "in_fresh_process", pretend)
    return calls


def test_rungs_take_turns_and_the_ones_that_fail_are_not_tried_again(order):
    seen = []
    done = measure_in_turns(None, LADDER[:4], 3, lambda *all_of_it: seen.append(all_of_it))
    a, b, c, d = LADDER[:4]
    assert order == [a, b, c, d, a, b, d, a, d]
    assert done.measured == {rung: tuple(f"{rung.name} {i}" for i in (1, 2, 3)) for rung in (a, d)}
    assert done.not_measured[c] == "no"
    assert "memory" in done.not_measured[b]
    assert len(seen) == len(order)
    assert done.gemm_peaks == (1e9, 1e9, 1e9)
