import random
import re
import shlex
import string
import time

import pytest

from exp.config.fields import all_fields
from exp.config.groups import Library, main_folder, open_library
from exp.config.overrides import parse
from exp.config.preflight import preflight
from exp.config.quoting import typed
from exp.config.schema import TrainConfig
from exp.errors import ConfigError, UserError


def problems(*arguments, verb="train", sweep=False, library=None):
    """Every error of a command line, as the user reads it."""
    with pytest.raises(UserError) as caught:
        preflight(verb, arguments, library or open_library(), sweep=sweep)
    return [str(error) for error in getattr(caught.value, "errors", (caught.value,))]


def problem(*arguments, **kwargs):
    found = problems(*arguments, **kwargs)
    assert len(found) == 1, found
    return found[0]


def config(*arguments, verb="train"):
    return preflight(verb, arguments, open_library()).trials[0].config


@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
def test_a_mistyped_key_is_refused_with_the_closest_name_behind_any_sign(sign):
    text = problem(f"{sign}lora.rnk=8")
    assert "the closest is lora.r." in text
    assert f"where: command line, {sign}lora.rnk=8" in text
    assert "fix:   lora.r=8" in text


def test_two_hundred_mutated_keys_are_all_refused_with_a_fix_in_under_two_seconds():
    rng = random.Random(0)
    keys = [key for key, field in all_fields(TrainConfig).items() if not field.is_section]
    mappings = ("model.architecture.", "lora.peft.", "training.trainer_kwargs.")
    mutants = set()
    while len(mutants) < 200:
        key = list(rng.choice(keys))
        at = rng.randrange(len(key))
        action = rng.choice(["drop", "swap", "insert"])
        if action == "drop":
            del key[at]
        elif action == "swap":
            key[at] = rng.choice(string.ascii_lowercase)
        else:
            key.insert(at, rng.choice(string.ascii_lowercase))
        mutant = "".join(key)
        valid = re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)*", mutant)
        if valid and mutant not in all_fields(TrainConfig) and not mutant.startswith(mappings):
            mutants.add(mutant)
    start = time.monotonic()
    found = problems(*(rng.choice(["", "+", "++"]) + mutant + "=1" for mutant in sorted(mutants)))
    assert time.monotonic() - start < 2
    assert len(found) == 200
    assert all("\n  fix:   " in text for text in found)


def test_mistakes_of_every_kind_are_shown_at_once():
    found = problems(
        "lora.rnk=8",
        "lora.dropout=1.5",
        "training.batch_size=many",
        "scheduler=cosin",
        "scheduler.warmup_steps=10",
        "training.steps=5",
        "foo",
    )
    assert len(found) == 6
    assert all(text.count("\n") == 2 for text in found)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lora.r=abc"], "lora.r is 'abc', but it has to be a whole number"),
        (["lora.r=8.5"], "lora.r is 8.5, but it has to be a whole number"),
        (["lora.r=true"], "lora.r is True, but it has to be a whole number"),
        (["cache.enabled=3"], "cache.enabled is 3, but it has to be true or false"),
        (["experiment=null"], "experiment=null is no choice"),
        (["hydra.mode=MULTIRUN"], "hydra.mode is set by a flag"),
        (["hydra.foo=1"], "hydra.foo is not a setting of Hydra"),
        (["=3"], "not of the form key=value"),
        (["lora.r=null"], "lora.r is None, but it has to be a whole number"),
        (["training.loss=prompt"], "one of completion, text"),
        (["lora.target_modules=q_proj"], "a list, like [a,b]"),
        (["lora.peft=3"], "a mapping"),
        (["lora.r=0"], "at least 1"),
        (["lora.dropout=1"], "at least 0 and less than 1"),
        (["lora.dropout=-0.1"], "at least 0 and less than 1"),
        (["optimizer.lr=nan"], "more than 0"),
        (["optimizer.lr=inf"], "more than 0"),
        (["seed=-1"], "from 0 to 4294967295"),
        (["name=../up"], "a name of letters"),
        (["lora.target_modules=[]"], "at least one layer name"),
        (["lora.target_modules=[all-linear,q_proj]"], "mixes all-linear"),
        (["training.micro_batch_size=32"], "more than a whole step"),
        (["hardware.devices=32"], "without an example"),
        (["model.trust_remote_code=true"], "has to be pinned"),
        (["model.trust_remote_code=true", "model.revision=main"], "model.revision is main"),
        (["model=tiny", "model.architecture={}", "model.weights=pretrained"], "where its weights"),
        (["task.instruction=x"], "only one can hold"),
        (["task=jsonl", "task.validation_fraction=0.5", "task.test_fraction=0.5"], "none are left"),
        (["generation.strategy=beam"], "more than one beam"),
        (["scheduler=wsd", "scheduler.decay_fraction=0.95"], "take 1.01 of the run"),
        (["scheduler.warmup_steps=10", "training.steps=5"], "the peak would never come"),
        (["lora.peft.use_rslor=true"], "the closest is use_rslora"),
        (["lora.peft.r=8"], "set by exp itself, from lora.r"),
        (["+lora.peft.lora_alpha=8"], "set by exp itself, from lora.alpha"),
        (["training.trainer_kwargs.strategi=ddp"], "the closest is strategy"),
        (["training.trainer_kwargs.max_steps=5"], "set by exp itself, from training.steps"),
        (["lora=huge"], "lora=huge is no choice"),
        (["lora=base_lora"], "lora=base_lora is no choice"),
        (["+lora=baseline"], "+ is not for groups"),
        (["~lora"], "~ is not for groups"),
        (["lora@peft=baseline"], "every group has its place"),
        (["~lora.r"], "cannot be taken out"),
        (["+lora.r=8"], "has a place already"),
        (["task.fields={input:text}"], "its keys are given one by one"),
        (["lora.r=8", "lora.r=16"], "lora.r is given twice"),
        (["lora.r=8,16"], "add --multirun"),
        (["lora.r"], "not of the form key=value"),
        (["lora.target_modules=[q_proj"], "cannot be read"),
        (["run=x"], "a setting of exp evaluate, not of exp train"),
        (["task.instruction='say ${name}'", "task.instruction_file=null"], "holds ${"),
        (["name=${oc.env:HOME}"], "takes its value from the environment"),
        (["name=${nothing}"], "nothing"),
        (["name=${ oc.env:HOME}"], "takes its value from the environment"),
        (["name=" + "a" * 129], "up to 128"),
        (["lora.r=99999999999999999999"], "at most 4294967295"),
        (["training.epochs=1e9"], "at most 1000000"),
        (["generation=beam", "generation.length_penalty=nan"], "a finite number"),
        (["training.trainer_kwargs.limit_train_batches=2"], "from training.steps"),
        (["training.trainer_kwargs.fast_dev_run=true"], "from training.steps"),
        (["näme=3"], "cannot be the name of a setting"),
        (["task.instruction=Grüße 🙂"], "has characters that need quotes"),
    ],
)
def test_what_cannot_be_is_refused(arguments, says):
    assert says in problem(*arguments)


@pytest.mark.parametrize("value", ["2024_01", "1e3", "3.10", "true", "007"])
def test_text_stays_as_it_was_typed(value):
    checked = preflight("train", [f"name={value}"], open_library())
    assert checked.trials[0].config.name == value
    assert preflight("train", checked.arguments, open_library()).trials[0].config.name == value


@pytest.mark.parametrize(
    "value", ["don't", "a=b", "x (1).jsonl", '$HOME `id` "q" !', "a\\", "ñ, {b}"]
)
def test_the_fix_of_a_value_that_cannot_be_read_can_be_typed_into_a_shell(value):
    (word,) = shlex.split(typed("task.train", value))
    assert parse(word).value() == value


def test_a_sweep_has_one_folder():
    text = problem("output_dir=a,b", "lora.r=8,16", sweep=True)
    assert "a sweep has one folder" in text


def test_a_choice_that_is_not_there_lists_those_that_are():
    text = problem("scheduler=cosinus")
    assert "the closest is cosine" in text
    assert "constant, cosine, linear, wsd" in text


def test_the_error_says_which_file_set_an_impossible_value(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "broken.yaml").write_text("defaults: [base_lora, _self_]\nr: 0\n")
    text = problem("lora=broken", library=open_library(str(tmp_path)))
    assert f"where: {tmp_path}/lora/broken.yaml" in text


def test_the_error_says_which_experiment_set_an_impossible_value(tmp_path):
    (tmp_path / "experiment").mkdir()
    for name, content in {
        "code": "defaults: [_self_]\nlora: {peft: {eva_config: {_target_: os.system}}}\n",
        "first": "defaults: [_self_]\nlora: {r: 0}\n",
        "second": "defaults: [first, _self_]\nseed: -4\n",
    }.items():
        file = tmp_path / "experiment" / f"{name}.yaml"
        file.write_text(f"# @package _global_\n{content}")
    library = open_library(str(tmp_path))
    assert f"where: {tmp_path}/experiment/code.yaml" in problem("experiment=code", library=library)
    of_lora, of_seed = problems("experiment=second", library=library)
    assert f"where: {tmp_path}/experiment/first.yaml" in of_lora
    assert f"where: {tmp_path}/experiment/second.yaml" in of_seed


def test_an_experiment_that_is_not_global_is_told_so(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("defaults: [_self_]\nlora: {r: 4}\n")
    text = problem("experiment=mine", library=open_library(str(tmp_path)))
    assert "# @package _global_ as the first line" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"defaults: [mine, _self_]", "comes up again among its own defaults"),
        (b"defaults: 3", "defaults must be a list"),
        (b"- 3", "holds no mapping"),
        (b"\xff\xfe", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_group_of_settings_is_an_error_and_no_traceback(tmp_path, content, says):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine.yaml").write_bytes(content)
    assert says in problem("lora=mine", library=open_library(str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rnk: 8", "lora.rnk is not a setting; the closest is lora.r."),
        ("r: many", "lora.r has to be a whole number: Value 'many'"),
        ("r: [8", "while parsing a flow sequence"),
        ("peft: {eva_config: {_target_: os.system}}", "_target_ is refused"),
    ],
)
def test_a_users_yaml_is_judged_like_the_command_line(tmp_path, content, says):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine.yaml").write_text(f"defaults: [base_lora, _self_]\n{content}\n")
    text = problem("lora=mine", library=open_library(str(tmp_path)))
    assert says in text
    assert str(tmp_path / "lora" / "mine.yaml") in text


@pytest.mark.thorough
def test_a_users_folder_adds_choices_and_cannot_shadow_ours(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "wide.yaml").write_text("defaults: [base_lora, _self_]\nr: 64\n")
    (tmp_path / "lora" / "baseline.yaml").write_text("defaults: [base_lora, _self_]\nr: 64\n")
    library = open_library(str(tmp_path))
    assert preflight("train", ["lora=wide"], library).trials[0].config.lora.r == 64
    assert preflight("train", ["lora=baseline"], library).trials[0].config.lora.r == 8


@pytest.mark.parametrize(
    "argument",
    [
        "lora._target_=os.system",
        "++lora.peft._target_=os.system",
        "lora.peft={_target_: os.system}",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.callbacks={x: {a: 1}}",
    ],
)
def test_no_argument_can_name_code_to_run(argument):
    assert "no setting can name code to run" in problem(argument)


@pytest.mark.parametrize(
    "value", ["hf_" + "a" * 30, "sk-" + "b" * 30, "https://user:word@host/x", "canary-of-the-env"]
)
def test_a_credential_is_refused_and_not_shown(value, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "canary-of-the-env")
    text = problem(f"task.train='{value}'")
    assert "looks like a credential" in text
    assert value not in text


def test_a_free_mapping_takes_keys_with_and_without_a_plus():
    assert config("lora.peft.bias=all").lora.peft == {"bias": "all"}
    assert config("+lora.peft.bias=all").lora.peft == {"bias": "all"}
    checked = preflight("train", ["training.trainer_kwargs.detect_anomaly=true"], open_library())
    assert checked.arguments == ("++training.trainer_kwargs.detect_anomaly=true",)


def test_a_missing_setting_is_named():
    found = problems(verb="predict")
    assert [text.splitlines()[0] for text in found] == [
        "input is not set, and has no default.",
        "output is not set, and has no default.",
    ]


@pytest.mark.thorough
def test_every_trial_of_a_sweep_is_judged_before_the_first_starts():
    text = problem(
        "scheduler.warmup_steps=1,20", "training.steps=10,30", "lora=glob(*a*)", sweep=True
    )
    assert "scheduler.warmup_steps=20 is more than training.steps=10" in text


def test_a_sweep_lists_its_trials():
    checked = preflight(
        "train",
        ["lora.r=8,16", "scheduler=glob(*n*)", "seed=range(0,2)"],
        open_library(),
        sweep=True,
    )
    configs = [trial.config for trial in checked.trials]
    assert [(c.lora.r, c.scheduler.kind.name, c.seed) for c in configs] == [
        (r, kind, seed)
        for r in (8, 16)
        for kind in ("constant", "cosine", "linear")
        for seed in (0, 1)
    ]
    assert checked.arguments[1] == "scheduler=constant,cosine,linear"


def test_a_sweep_gives_its_trials_names_itself():
    assert "name is given by the sweep" in problem("lora.r=8,16", "name=x", sweep=True)


def test_a_sweep_over_an_interval_leaves_the_values_to_the_sweeper():
    checked = preflight("train", ["optimizer.lr=interval(0,1)"], open_library(), sweep=True)
    assert len(checked.trials) == 1


def test_files_that_do_not_fit_together_are_one_error(tmp_path):
    (tmp_path / "train.yaml").write_text("defaults: [base_train, nothing_of_that_name, _self_]\n")
    text = problem(library=Library((tmp_path,)))
    assert "do not fit together" in text
    assert main_folder().is_dir()


def test_a_users_folder_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("EXP_CONF_DIR", "/no/such/folder")
    with pytest.raises(ConfigError, match="There is no folder") as caught:
        open_library()
    assert caught.value.where == "EXP_CONF_DIR=/no/such/folder"


def test_two_folders_of_the_user_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("EXP_CONF_DIR", str(tmp_path))
    assert open_library(str(tmp_path)).extra == tmp_path
    with pytest.raises(ConfigError, match="name different folders"):
        open_library(str(tmp_path.parent))
