import math

import pytest

from exp.config.effects import IDLE
from exp.config.fields import all_fields, find
from exp.config.overrides import Given
from exp.config.ranges import RULES, ranges
from exp.config.schema import PRIMARIES, TrainConfig


def known():
    return {key: field for root in PRIMARIES.values() for key, field in all_fields(root).items()}


@pytest.mark.parametrize("table", [RULES, IDLE])
def test_every_rule_is_about_a_setting_that_exists(table):
    assert set(table) <= set(known())


def test_every_number_has_a_range():
    numbers = {key for key, field in known().items() if {int, float} & set(field.alternatives)}
    assert numbers <= set(RULES)


@pytest.mark.parametrize("verb", PRIMARIES)
def test_every_default_is_within_its_range(verb):
    config = PRIMARIES[verb]()
    outside = {error.what.split()[0] for error in ranges(config, Given())}
    unset = {key for key, field in all_fields(PRIMARIES[verb]).items() if field.default == "???"}
    assert outside <= unset


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_may_be_infinite_or_undefined(value):
    config = TrainConfig()
    config.optimizer.lr = value
    assert any(error.what.startswith("optimizer.lr") for error in ranges(config, Given()))


@pytest.mark.parametrize("key", [key for key in RULES if find(TrainConfig, key)])
def test_null_is_within_the_range_where_it_is_allowed(key):
    field = find(TrainConfig, key)
    if type(None) in field.alternatives:
        config = TrainConfig()
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, None)
        assert not [e for e in ranges(config, Given()) if e.what.startswith(f"{key} ")]
