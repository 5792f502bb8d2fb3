import dataclasses

import pytest
from omegaconf import OmegaConf

from exp.config.groups import open_library
from exp.config.plain import read_config, write_config
from exp.config.preflight import preflight
from exp.config.resolve import resolve
from exp.config.schema import EvaluateConfig, Strategy, TrainConfig
from exp.errors import CheckpointError, ConfigError, UserError, UserErrors


@pytest.fixture
def run(tmp_path):
    """A run folder that was made with settings unlike the defaults."""
    arguments = [
        *("model=tiny", "task=jsonl", "task.train=a.jsonl", "task.name=mine"),
        *("generation=beam", "seed=7", "data.max_length_tokens=99"),
    ]
    config = preflight("train", arguments, open_library()).trials[0].config
    task = dataclasses.replace(config.task, instruction="do ${this} and \\${that}")
    write_config(tmp_path / "config.yaml", dataclasses.replace(config, task=task))
    return tmp_path


def evaluate(*arguments, verb="evaluate"):
    return preflight(verb, arguments, open_library()).trials[0]


def test_the_resolved_configuration_is_closed():
    config = preflight("train", [], open_library()).trials[0].config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lora.r = 3


def test_a_key_that_got_in_behind_the_schema_is_refused():
    config = OmegaConf.structured(EvaluateConfig)
    OmegaConf.update(config, "generation.top_kk", 3, force_add=True)
    OmegaConf.update(config, "model.name", "x")
    with pytest.raises(UserError, match=r"generation\.top_kk is not a setting"):
        resolve("evaluate", config)


def test_a_run_brings_its_own_settings_along(run):
    resolved = evaluate(f"run={run}")
    trained = read_config(run / "config.yaml")
    for name in ("model", "task", "data", "generation", "quantization", "seed"):
        assert getattr(resolved.config, name) == getattr(trained, name)
    assert resolved.config.task.instruction == "do ${this} and \\${that}"
    assert str(run) in resolved.derived[0].reason


def test_the_command_line_goes_before_the_run(run):
    config = evaluate(
        f"run={run}", "generation.num_beams=7", "data.limit=3", "seed=1", "limit=5", "hardware=cpu"
    ).config
    assert config.generation.num_beams == 7
    assert config.generation.strategy is Strategy.beam
    assert (config.data.limit, config.data.max_length_tokens) == (3, 99)
    assert (config.seed, config.limit, config.hardware.name) == (1, 5, "cpu")


def test_a_chosen_group_takes_the_place_of_the_runs_section(run):
    config = evaluate(f"run={run}", "generation=greedy").config
    assert (config.generation.strategy, config.generation.num_beams) == (Strategy.greedy, 1)


def test_a_setting_without_effect_that_a_run_brings_along_is_placed_in_the_run(run):
    (note,) = evaluate(f"run={run}", "generation=greedy", "generation.top_k=3").warnings
    assert "(command line, generation.top_k=3)" in note
    config = dataclasses.replace(read_config(run / "config.yaml"))
    generation = dataclasses.replace(config.generation, temperature=0.5)
    write_config(run / "config.yaml", dataclasses.replace(config, generation=generation))
    (note,) = evaluate(f"run={run}").warnings
    assert f"({run}/config.yaml)" in note


def test_a_run_to_go_on_with_that_is_not_there_is_named_by_its_own_setting():
    with pytest.raises(CheckpointError) as caught:
        evaluate("training.resume=/nowhere", verb="train")
    assert caught.value.where == "command line, training.resume=/nowhere"


def test_the_best_checkpoint_of_text_is_chosen_by_a_score_that_text_has():
    text = ("task=jsonl", "task.train=a.jsonl", "task.output_format=text")
    assert evaluate(*text, verb="train").config.task.monitor == "exact_match"
    assert evaluate(*text, "task.monitor=bleu", verb="train").config.task.monitor == "bleu"
    typed = evaluate(*text, "task.monitor=field_f1", verb="train")
    assert typed.config.task.monitor == "field_f1"  # refused once the task is there
    assert evaluate(verb="train").config.task.monitor == "field_f1"


@pytest.mark.parametrize(
    "argument", ["model=tiny", "task=jsonl", "model.hub_id=a/b", "task.name=x"]
)
def test_another_model_or_task_contradicts_a_run(run, argument):
    with pytest.raises(ConfigError, match="contradicts run=") as caught:
        evaluate(f"run={run}", argument)
    assert caught.value.where == f"command line, {argument}"


def test_a_run_can_be_scored_on_other_rows(run):
    assert evaluate(f"run={run}", "task.test=b.jsonl").config.task.test == "b.jsonl"


def test_each_of_several_runs_keeps_its_own_settings(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_config(other / "config.yaml", preflight("train", [], open_library()).trials[0].config)
    resolved = evaluate(f"run=[{run},{other}]")
    assert [config.run for config in resolved.configs] == [str(run), str(other)]
    assert [config.model.name for config in resolved.configs] == ["tiny", "smollm2_135m"]


def test_a_run_that_is_not_there_is_an_error():
    with pytest.raises(CheckpointError, match="not a run folder"):
        evaluate("run=/no/such/run")


def test_what_is_mistyped_beside_a_run_that_is_not_there_is_told_at_once():
    with pytest.raises(UserErrors) as caught:
        evaluate("run=/no/such/run", "split=tst")
    assert "not a run folder" in str(caught.value)
    assert "split is tst" in str(caught.value)


@pytest.mark.parametrize("argument", ["run=[3]", "run=[]", "run={a: b}"])
def test_a_run_has_to_be_a_folder(argument):
    with pytest.raises(ConfigError, match="run folder or a list"):
        evaluate(argument)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["generation.top_k=5"], "generation.top_k"),
        (["generation.temperature=1.0"], "generation.temperature"),
        (["generation.num_beams=3"], "generation.num_beams"),
        (["scheduler.decay_fraction=0.3"], "scheduler.decay_fraction"),
        (["scheduler=constant", "scheduler.min_lr_fraction=0.3"], "scheduler.min_lr_fraction"),
        (
            ["scheduler.warmup_steps=3", "scheduler.warmup_fraction=0.1"],
            "scheduler.warmup_fraction",
        ),
        (["tracker.project=x"], "tracker.project"),
        (["tracker=csv", "tracker.entity=x"], "tracker.entity"),
        (["cache.enabled=false", "cache.max_age_days=3"], "cache.max_age_days"),
        (["task.test_fraction=0.3"], "task.test_fraction"),
    ],
)
def test_a_setting_without_effect_is_named(arguments, key):
    warnings = preflight("train", arguments, open_library()).trials[0].warnings
    assert [warning.split()[0] for warning in warnings] == [key]


@pytest.mark.parametrize(
    "arguments",
    [
        ["generation=sample", "generation.top_k=5"],
        ["scheduler=wsd", "scheduler.decay_fraction=0.3"],
        ["tracker=wandb", "tracker.project=x"],
        ["task=jsonl", "task.test_fraction=0.3"],
    ],
)
def test_a_setting_with_effect_is_not_warned_about(arguments):
    assert preflight("train", arguments, open_library()).trials[0].warnings == ()


def test_a_profile_whose_strategy_is_overridden_warns_about_the_rest_of_it():
    arguments = ["generation=sample", "generation.strategy=greedy"]
    warnings = preflight("train", arguments, open_library()).trials[0].warnings
    assert "conf/generation/sample.yaml" in warnings[0]
    assert len(warnings) == 4


def resumed(run, *arguments):
    return preflight("train", [f"training.resume={run}", *arguments], open_library()).trials[0]


def test_a_resumed_run_takes_its_settings_from_the_run(run):
    config, before = resumed(run).config, read_config(run / "config.yaml")
    for name in ("model", "task", "data", "generation", "lora", "optimizer", "scheduler", "seed"):
        assert getattr(config, name) == getattr(before, name)
    assert config.training.resume == str(run)
    assert config.training.steps == before.training.steps


@pytest.mark.thorough
def test_a_resumed_run_may_compute_elsewhere_and_for_longer(run):
    arguments = ["hardware=cpu", "tracker=csv", "cache.enabled=false", "training.minutes=5"]
    config = resumed(run, *arguments).config
    assert config.hardware.name == "cpu"
    assert config.tracker.kind.name == "csv"
    assert not config.cache.enabled
    assert config.training.minutes == 5


@pytest.mark.parametrize(
    "argument", ["lora.r=3", "lora=baseline", "seed=8", "model=tiny", "training.steps=9", "name=x"]
)
def test_a_resumed_run_keeps_what_it_computes(run, argument):
    with pytest.raises(ConfigError, match=r"contradicts training\.resume=") as caught:
        resumed(run, argument)
    assert caught.value.where == f"command line, {argument}"


def test_only_a_run_folder_can_be_resumed(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        resumed(tmp_path / "nowhere")


def test_run_folders_lie_below_the_task_unless_told_otherwise():
    assert TrainConfig().output_dir is None
    assert preflight("train", ["output_dir=x"], open_library()).trials[0].config.output_dir == "x"


def test_loss_on_the_text_goes_with_every_layout():
    for layout in ("shared_prefix", "packed", "padded"):
        arguments = ["training.loss=text", f"training.layout={layout}"]
        config = preflight("train", arguments, open_library()).trials[0].config
        assert (config.training.loss.name, config.training.layout.name) == ("text", layout)


def test_the_baseline_experiment_leaves_the_layout_alone():
    arguments = ["experiment=canonicalization_baseline"]
    config = preflight("train", arguments, open_library()).trials[0].config
    assert config.training.loss.name == "text"
    assert config.training.layout is TrainConfig().training.layout
