import json
import os
import shutil
import subprocess
import sys

import pytest

from exp.hardware.machine import has_cuda_driver

BASE = (
    *("model=tiny", "hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1"),
    *("task=jsonl", "task.instruction=Write the order as JSON."),
)
SAME = ("hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1")


def scores(run):
    return json.loads((run / "scores.json").read_text())


def test_a_run_is_scored_again_from_the_cache_without_importing_torch(cached):
    before = scores(cached.run)
    words = ["evaluate", f"run={cached.run}", *SAME, "split=test"]
    code = (
        "import sys; from exp import cli\n"
        f"code = cli.main({words!r})\n"
        "heavy = [m for m in ('torch', 'transformers', 'lightning', 'peft') if m in sys.modules]\n"
        "print('heavy:', heavy, file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    assert "5 hits, 0 misses" in result.stderr
    if not has_cuda_driver():
        assert "heavy: []" in result.stderr
    assert scores(cached.run) == before


def test_a_run_is_scored_the_same_without_the_cache(trained, exp, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "copy")
    before = scores(run)
    (run / "scores.json").unlink()
    assert exp("evaluate", f"run={run}", *SAME, "cache.enabled=false") == 0
    after = scores(run)
    assert after["test"]["after"] == before["test"]["after"]
    kept = (run / "predictions" / "test.jsonl").read_bytes()
    assert kept == (trained.run / "predictions" / "test.jsonl").read_bytes()


def test_the_cache_that_training_filled_answers_for_both_checkpoints(cached, exp, capsys):
    assert exp("evaluate", f"run={cached.run}", *SAME, "split=validation", "limit=2") == 0
    assert "2 hits, 0 misses" in capsys.readouterr().err
    assert exp("evaluate", f"run={cached.run}", *SAME, "checkpoint=last", "limit=2") == 0


def test_a_part_of_a_split_is_scored_but_not_kept(trained, exp, tmp_path, capsys):
    run = shutil.copytree(trained.run, tmp_path / "copy")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert exp("evaluate", f"run={run}", *SAME, "limit=2") == 0
    assert "field_f1" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_base_model_is_scored_without_a_run(trained, exp, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = (*BASE, *trained.task, "generation.max_new_tokens=6")
    assert exp("evaluate", *words) == 0
    assert "tiny on test" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_base_model_needs_a_token_limit(trained, exp, capsys):
    assert exp("evaluate", *BASE, *trained.task) == 2
    assert "fix:   generation.max_new_tokens=256" in capsys.readouterr().err


def test_several_runs_are_shown_in_one_table(trained, exp, tmp_path, capsys):
    copy = shutil.copytree(trained.run, tmp_path / "second")
    assert exp("evaluate", f"run=[{trained.run},{copy}]", *SAME) == 0
    shown = capsys.readouterr().out
    assert "orders/first" in shown
    assert "orders/second" in shown


def test_runs_of_one_name_are_told_apart_by_their_folders(trained, exp, tmp_path, capsys):
    copy = shutil.copytree(trained.run, tmp_path / "first")
    assert exp("evaluate", f"run=[{trained.run},{copy}]", *SAME, "limit=1") == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if "/first " in line][:2] == [
        str(trained.run),
        str(copy),
    ]


@pytest.mark.parametrize(
    "other", ["generation.max_new_tokens=3", "checkpoint=step_000005", "seed=7"]
)
def test_scores_under_other_settings_do_not_replace_the_runs_own(
    trained, exp, tmp_path, other, capsys
):
    run = shutil.copytree(trained.run, tmp_path / "copy")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert exp("evaluate", f"run={run}", *SAME, other) == 0
    assert f"not kept in {run}, which has other settings: {other}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_setting_of_speed_alone_does_not_keep_scores_from_the_run(trained, exp, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "copy")
    (run / "scores.json").unlink()
    words = ("generation.slots=2", "generation.drafting=false")
    assert exp("evaluate", f"run={run}", *SAME, *words) == 0
    assert scores(run)["test"]["after"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run=nowhere",), "is not a run folder"),
        (("checkpoint=step_000099",), "step_000099"),
        (("split=train", "task.train=nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_is_not_there_is_said_in_three_lines(trained, exp, words, says, capsys):
    run = () if words[0].startswith("run=") else (f"run={trained.run}",)
    assert exp("evaluate", *run, *words, *SAME) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert "fix: " in error


def test_a_damaged_checkpoint_is_not_scored(trained, exp, tmp_path, capsys):
    run = shutil.copytree(trained.run, tmp_path / "copy")
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    name = best.get("name") or best["content"]["name"]
    file = run / "checkpoints" / name / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert exp("evaluate", f"run={run}", *SAME) == 2
    assert "adapter_model.safetensors" in capsys.readouterr().err
