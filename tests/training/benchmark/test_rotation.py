import pytest

from exp.training.benchmark.ladder import LADDER
from exp.training.benchmark.measure import measure_rung
from exp.training.benchmark.rotation import in_fresh_process


@pytest.mark.slow
def test_a_fresh_process_measures_what_this_one_does(job):
    fresh = in_fresh_process(measure_rung, job, LADDER[0])
    here = measure_rung(job, LADDER[0])
    assert fresh.loss == pytest.approx(here.loss, rel=1e-6)
    assert fresh.peak_bytes > 0
