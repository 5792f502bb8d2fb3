import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exp.config.groups import open_library
from exp.config.plain import build, config_hash, read_config, write_config
from exp.config.preflight import preflight
from exp.config.schema import PredictConfig, Schedule, TrainConfig
from exp.errors import CheckpointError, ConfigError


def resolved(*arguments):
    return preflight("train", arguments, open_library()).trials[0].config


def test_a_written_configuration_is_read_back_the_same(tmp_path):
    config = resolved("lora.alpha=3", "optimizer.lr=1e-7", "name='007'", "lora.peft.bias=all")
    write_config(tmp_path / "config.yaml", config)
    again = read_config(tmp_path / "config.yaml")
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_the_file_holds_plain_values_with_enums_by_name(tmp_path):
    write_config(tmp_path / "config.yaml", resolved())
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["scheduler"]["kind"] == "cosine"
    assert content["lora"]["alpha"] == 32.0
    assert "!" not in (tmp_path / "config.yaml").read_text()


@settings(max_examples=40, deadline=None)
@example("next\x85line", 0.0)
@example("\u2028 \ufeff\r\n", 0.0)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e9, allow_nan=False))
@pytest.mark.thorough
def test_any_text_and_number_survives_the_file(tmp_path_factory, text, number):
    config = TrainConfig()
    config.task.instruction = text
    config.optimizer.lr = number
    path = tmp_path_factory.mktemp("plain") / "config.yaml"
    write_config(path, config)
    assert read_config(path) == config


def test_the_hash_is_the_same_in_another_process_and_changes_with_any_value():
    code = "from exp.config.plain import *; print(config_hash(TrainConfig()))"
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    other = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert other.strip() == config_hash(TrainConfig())
    changed = TrainConfig()
    changed.scheduler.kind = Schedule.linear
    assert config_hash(changed) != config_hash(TrainConfig())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"lora": {"rnk": 8}}, "lora.rnk is not a setting; the closest is lora.r"),
        ({"lora": {"r": "8"}}, "lora.r is '8'"),
        ({"lora": {"r": True}}, "lora.r is True"),
        ({"lora": 3}, "lora is 3, which is not a mapping"),
        ({"scheduler": {"kind": "cos"}}, "scheduler.kind is 'cos'"),
    ],
)
def test_a_damaged_configuration_is_refused(content, says):
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, content, "config.yaml")
    assert says in str(caught.value)


def test_a_tag_in_a_configuration_file_runs_nothing(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(path)


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_config(tmp_path / "config.yaml")


def test_a_configuration_of_another_verb_can_be_read():
    assert build(PredictConfig, {"input": "a.csv"}, "here").input == "a.csv"
