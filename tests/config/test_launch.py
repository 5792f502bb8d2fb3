import sys

import pytest

from exp.config.groups import open_library
from exp.config.launch import compose, split
from exp.config.preflight import preflight
from exp.config.resolve import resolve
from exp.errors import ConfigError


def test_flags_and_arguments_are_told_apart_in_any_order():
    line = split("train", ["lora.r=8,16", "-m", "seed=1", "--config-dir", "/tmp"])
    assert line.arguments == ("lora.r=8,16", "seed=1")
    assert line.flags == ("-m",)
    assert (line.config_dir, line.multirun, line.asks) == ("/tmp", True, False)


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--info", "defaults"], ["--hydra-help"]])
def test_a_flag_that_only_prints_is_known_as_such(words):
    assert split("train", [*words, "lora.r=8"]).asks


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cfgg", "job"], "the closest is --cfg"),
        (["--cfg", "jobb"], "invalid choice"),
        (["-z"], "-z is no flag"),
        (["--c", "job"], "--c is no flag"),
        (["--version"], "--version is no flag"),
        (["--resolve"], "do not go together"),
        (["--cfg", "job", "-m"], "do not go together"),
        (["--config-path", "/tmp"], "--config-path is not for exp"),
        (["-cn", "other"], "--config-name is not for exp"),
        (["--experimental-rerun", "job.pickle"], "--experimental-rerun is not for exp"),
    ],
)
def test_a_wrong_flag_is_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        split("train", words)


def test_hydra_sees_no_verb_and_leaves_the_command_line_as_it_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["exp", "train", "lora.r=8"])
    config = compose("train", open_library(), [], ["lora.r=8"])
    assert config.lora.r == 8
    assert sys.argv == ["exp", "train", "lora.r=8"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("experiment=quick", "lora.r=8"),
        ("hardware=t4", "lora=standard", "lora.peft.lora_bias=false", "optimizer.lr=1e-3"),
        ("task=jsonl", "task.train=a.jsonl", "augmentation=strong", "training.steps=null"),
    ],
)
@pytest.mark.thorough
def test_hydra_composes_what_was_judged_before(words):
    checked = preflight("train", words, open_library())
    (trial,) = checked.trials
    config = compose("train", open_library(), [], checked.arguments)
    assert resolve("train", config, checked.given) == trial


def test_a_printing_flag_composes_nothing_to_run(capsys):
    assert compose("train", open_library(), ["--cfg", "job", "--package", "lora"], []) is None
    assert "dropout: 0.0" in capsys.readouterr().out


def test_hydras_own_settings_can_still_be_given(capsys):
    flags = ["--cfg", "hydra", "--package", "hydra.run"]
    compose("train", open_library(), flags, ["hydra.run.dir=elsewhere"])
    assert "dir: elsewhere" in capsys.readouterr().out
