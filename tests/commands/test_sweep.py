import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from exp import cli
from exp.commands import sweep
from exp.commands.study import Study
from exp.commands.sweep import quoted, read_score, run_trial, trial_name
from exp.config.overrides import parse
from exp.rundir import RunDir

REAL_PYTHON = sys.executable

# Stands in for `python -m exp train`: fails or dies by rank, else writes what a run writes.
TRIAL = """\
#!{python}
import json, os, sys, time
from pathlib import Path
words = dict(word.split("=", 1) for word in sys.argv[4:] if "=" in word)
rank = int(words["lora.r"])
print("rank", rank, flush=True)
if rank == 13:
    raise RuntimeError("unlucky")
if rank == 9:
    os.kill(os.getpid(), 9)
if rank == 99:
    time.sleep(60)
run = Path(words["output_dir"].strip("'")) / words["name"]
run.mkdir()
(run / "config.yaml").write_text("task: {{name: orders_es}}")
score = {{"value": rank / 100, "low": 0.01, "high": 0.9, "count": 7}}
(run / "scores.json").write_text(json.dumps({{"test": {{"after": {{"field_f1": score}}}}}}))
"""


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """Makes every trial a small script; the folder in which the sweep runs."""
    script = tmp_path / "trial"
    script.write_text(TRIAL.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sweep.sys, "executable", str(script))
    monkeypatch.setattr(cli, "verbs", lambda: cli.VERBS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_of(folder):
    (study,) = (folder / "multirun" / "orders_es").iterdir()
    return study


@pytest.mark.thorough
def test_failed_trials_do_not_hide_the_others(trials, capsys):
    assert cli.main(["train", "-m", "lora.r=8,13,9,16", "seed=3"]) == 1
    study = study_of(trials)
    rows = json.loads((study / "leaderboard.json").read_text())
    assert [(row["changed"], row["status"], row["score"]) for row in rows] == [
        ("lora.r=16", "ok", 0.16),
        ("lora.r=8", "ok", 0.08),
        ("lora.r=13", "failed (exit 1)", None),
        ("lora.r=9", "killed (SIGKILL)", None),
    ]
    with (study / "leaderboard.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [row["trial"] for row in rows]
    for row in rows:
        console = study / row["trial"] / "console.log"
        assert row["log"] == str(console)
        assert f"rank {row['changed'].partition('=')[2]}" in console.read_text()
    shown = capsys.readouterr().out
    assert "failed (exit 1): RuntimeError: unlucky" in shown
    assert "0.0100 to 0.9000" in shown
    assert "2 of 4 trials ended well" in shown
    assert "\x1b" not in shown


@pytest.mark.thorough
def test_a_sweep_without_failures_ends_with_0_and_says_what_is_next(trials, capsys):
    assert cli.main(["train", "--multirun", "lora.r=8,16"]) == 0
    best = study_of(trials) / "001-lora.r-16"
    assert f"exp evaluate run={best.relative_to(trials)}" in capsys.readouterr().out


@pytest.mark.thorough
def test_lists_among_the_overrides_are_shown_as_they_are(trials, capsys):
    lists = "[q_proj,v_proj]", "[k_proj]"
    words = ["lora.r=8", f"lora.target_modules={','.join(lists)}"]
    assert cli.main(["train", "--multirun", *words]) == 0
    table = capsys.readouterr().out.partition("95% interval")[2]
    for one in lists:
        assert f"lora.target_modules={one}" in table


@pytest.mark.thorough
def test_an_interrupted_sweep_shows_what_it_has_and_ends_with_130(trials):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from exp import cli; cli.verbs = lambda: cli.VERBS\n"
        f"sys.executable = {str(trials / 'trial')!r}\n"
        "sys.exit(cli.main(['train', '-m', 'lora.r=8,99,16']))"
    )
    process = subprocess.Popen(
        [REAL_PYTHON, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if line.startswith("trial 2/3"):
            break
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "1 of 1 trials ended well" in shown
    rows = json.loads((study_of(trials) / "leaderboard.json").read_text())
    assert [row["changed"] for row in rows] == ["lora.r=8"]


def test_a_trial_does_not_outlive_a_second_interruption(tmp_path, monkeypatch):
    processes, waits = [], []
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        processes.append(process)
        waits.append(timeout)
        if len(waits) <= 2:
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep._run(["sleep", "60"], tmp_path / "console.log")
    assert waits == [None, 30, None]
    assert processes[0].returncode == -signal.SIGKILL


def test_a_mistake_in_any_trial_is_found_before_the_first_starts(trials, capsys):
    assert cli.main(["train", "-m", "lora.r=8,0"]) == 2
    assert "lora.r is 0, but it has to be at least 1" in capsys.readouterr().err
    assert not (trials / "multirun").exists()


def test_a_verb_without_a_score_to_compare_has_no_sweep(trials, capsys):
    assert cli.main(["evaluate", "-m", "seed=1,2"]) == 2
    assert "has no sweep" in capsys.readouterr().err


@pytest.mark.thorough
def test_studies_can_be_kept_elsewhere(trials):
    assert cli.main(["train", "-m", "lora.r=8,16", "output_dir=elsewhere"]) == 0
    assert len(list((trials / "elsewhere" / "orders_es").iterdir())) == 1


def test_the_score_goes_back_to_the_sweeper(trials):
    study = Study(trials, "train", ())
    assert run_trial(study, 0, ["lora.r=8"]) == 0.08
    assert math.isnan(run_trial(study, 1, ["lora.r=13"]))
    assert [trial.status for trial in study.trials()] == ["ok", "failed (exit 1)"]


def test_a_trial_is_judged_by_validation_where_it_has_a_score(tmp_path):
    run = RunDir(tmp_path)
    run.config.write_text("task: {monitor: exact_match}")
    scores = {
        "test": {"after": {"exact_match": {"value": 0.4}}},
        "validation": {"after": {"exact_match": {"value": 0.3}, "field_f1": {"value": 0.9}}},
    }
    run.scores.write_text(json.dumps(scores))
    split, score = read_score(run)
    assert (split, score.name, score.value) == ("validation", "exact_match", 0.3)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"test": {"after": {"field_f1": null}}}'])
def test_a_run_without_a_readable_score_has_none(tmp_path, content):
    run = RunDir(tmp_path)
    run.config.write_text("seed: 1")
    run.scores.write_text(content)
    assert read_score(run) == (None, None)


@pytest.mark.parametrize(
    "overrides",
    [["lora.r=8"], ["task.train='a b/c.jsonl'"], ["lora.target_modules=[a,b]"], ["x=" + "y" * 300]],
)
def test_a_trials_name_is_safe_as_a_folder_and_as_an_override(overrides):
    name = trial_name(7, overrides)
    assert name.startswith("007-")
    assert len(name) <= 80
    assert parse(f"name={name}").value() == name


@pytest.mark.parametrize("text", ["/a b/c", "/it's", "/a\\", "/a\\'b", "/a,b=[c]", "/ñ"])
def test_quoted_text_is_read_back_as_it_was(text):
    assert parse(f"output_dir={quoted(text)}").value() == text
