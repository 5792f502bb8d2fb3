from exp.training.benchmark.spread import Spread, spread


def test_a_spread_is_median_and_range():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
