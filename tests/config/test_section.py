import copy
import dataclasses
import pickle

import pytest

from exp.config.schema import TrainConfig
from exp.config.section import close


def test_a_closed_configuration_refuses_assignment_at_every_depth():
    config = TrainConfig()
    close(config)
    for section, name in ((config, "seed"), (config.lora, "r"), (config.task.fields, "input")):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(section, name, 1)


def test_an_open_configuration_takes_values():
    config = TrainConfig()
    config.lora.r = 3
    assert config.lora.r == 3


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_closed_configuration_is_equal_and_closed(clone):
    config = TrainConfig()
    close(config)
    twin = clone(config)
    assert twin == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        twin.lora.r = 3


def test_a_changed_copy_is_made_with_replace():
    config = TrainConfig()
    close(config)
    assert dataclasses.replace(config.lora, r=3).r == 3
    assert config.lora.r == 16
