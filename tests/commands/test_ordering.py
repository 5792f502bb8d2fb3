"""Order, balance, weights and cut inputs, from the command line to a finished run."""

import json
import os
import signal

import pytest

from exp.commands import ordering
from exp.commands.session import Session


@pytest.fixture
def train(trained, exp, tmp_path):
    """Train as the finished run was, with some settings changed."""

    def train(name, *more):
        given = {word.partition("=")[0] for word in (*more, "output_dir=")}
        same = [word for word in trained.arguments if word.partition("=")[0] not in given]
        rest = ("training.evaluate_base=false", f"output_dir={tmp_path}", f"name={name}")
        return exp("train", *same, *more, *rest)

    return train


def losses(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["values"]["train/loss"] for line in lines if "train/loss" in line["values"]]


def derived(run):
    return {
        row["name"]: row["reason"] for row in json.loads((run / "run.json").read_text())["derived"]
    }


@pytest.mark.thorough
def test_a_resumed_run_keeps_order_and_balance_to_the_bit(train, exp, tmp_path, monkeypatch):
    settings = ("data.order=curriculum", "data.balance=product", "data.pacing_end=1")
    assert train("whole", *settings) == 0
    recorded = Session.record

    def record_and_stop(session, step, epoch, values):
        recorded(session, step, epoch, values)
        if step == 3 and "train/loss" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "record", record_and_stop)
        assert train("broken", *settings) == 143
    hardware = ("hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1")
    assert exp("train", f"training.resume={tmp_path / 'broken'}", *hardware) == 0
    files = [
        (tmp_path / name / "checkpoints" / "step_000005" / "adapter_model.safetensors").read_bytes()
        for name in ("whole", "broken")
    ]
    assert files[0] == files[1]
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    assert '"nails"' in derived(tmp_path / "whole")["data.balance"]


@pytest.mark.thorough
def test_the_base_model_is_asked_once_how_hard_the_rows_are(train, tmp_path, monkeypatch):
    settings = ("data.order=curriculum", "data.difficulty=base_loss", "training.steps=1")
    assert train("first", *settings) == 0
    monkeypatch.setattr(ordering, "example_losses", None)
    assert train("second", *settings) == 0
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


@pytest.mark.thorough
def test_weights_of_training_files_and_cut_inputs_are_told(train, trained, tmp_path, capsys):
    folder = trained.run.parent
    row = {"id": "long", "input": "please send 3 pins " * 20, "output": {"quantity": 3}}
    (tmp_path / "more.jsonl").write_text(json.dumps(row) + "\n")
    settings = (
        f"task.train=[{folder / 'train.jsonl'},{tmp_path / 'more.jsonl'}]",
        "task.train_weights=[0.9,0.1]",
        "data.max_length_tokens=200",
        "data.on_overlong=truncate_prompt",
        "training.steps=1",
    )
    assert train("mixed", *settings) == 0
    reason = derived(tmp_path / "mixed")["task.train_weights"]
    assert reason.startswith("an epoch takes 17 of 18 rows, 2 of 1 rows")
    assert "cut: long has its input cut, to 200 tokens in all" in capsys.readouterr().err
