import csv
import hashlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from exp.commands.session import Session

STEPS = 5


def adapter(run: Path, step: int = STEPS) -> str:
    file = run / "checkpoints" / f"step_{step:06d}" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def optimizer(run: Path, step: int = STEPS) -> bytes:
    return (run / "checkpoints" / f"step_{step:06d}" / "optimizer.safetensors").read_bytes()


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def points(run: Path, name: str) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["values"][name]) for line in lines if name in line["values"]]


def again(trained, exp, folder, name, *more):
    """Train as before, into another folder; without the base model's scores unless limited."""
    given = {word.partition("=")[0] for word in more}
    arguments = [word for word in trained.arguments if word.partition("=")[0] not in given]
    arguments = [word for word in arguments if not word.startswith("output_dir=")]
    if "training.base_limit" not in given:
        arguments.append("training.evaluate_base=false")
    words = (*arguments, *more, f"output_dir={folder}")
    return exp("train", *words, f"name={name}")


def test_a_run_folder_holds_what_the_design_says(trained):
    files = {str(path.relative_to(trained.run)) for path in trained.run.rglob("*")}
    assert files >= {
        *("config.yaml", "run.json", "run.log", "metrics.jsonl", "scores.json", "report.html"),
        *("checkpoints/best.json", "checkpoints/last.json"),
        *(f"predictions/{name}.jsonl" for name in ("test", "test_before", "validation")),
        *(
            f"checkpoints/step_{STEPS:06d}/{name}"
            for name in (
                *("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"),
                *("state.json", "MANIFEST.json"),
            )
        ),
    }
    leftovers = {name for name in files if Path(name).suffix in (".pt", ".ckpt", ".bin", ".pkl")}
    assert leftovers == set()


def test_the_record_says_how_the_run_ended_and_what_it_was_made_of(trained):
    content = record(trained.run)
    assert content["status"] == "completed"
    assert content["training"]["steps"] == STEPS
    assert content["versions"].keys() >= {"torch", "transformers", "peft", "lightning"}
    derived = {value["name"]: value for value in content["derived"]}
    assert derived["training steps"]["value"] == STEPS
    assert derived["hardware.precision"]["value"] == "fp32"


def test_the_configuration_of_a_run_is_plain_yaml_with_every_derived_value(trained):
    content = yaml.safe_load((trained.run / "config.yaml").read_text())
    assert content["model"]["name"] == "tiny"
    assert content["training"]["steps"] == STEPS
    assert content["generation"]["max_new_tokens"] == 6


def test_every_split_is_scored_before_and_after(trained):
    scores = json.loads((trained.run / "scores.json").read_text())
    counts = {"validation": 2, "test": 5}
    assert set(scores) == set(counts)
    for split, count in counts.items():
        for stage in ("before", "after"):
            assert scores[split][stage]["field_f1"]["count"] == count
        name = trained.run / "predictions" / f"{split}.jsonl"
        assert len(name.read_text().splitlines()) == count


def test_predictions_stand_beside_their_references(trained):
    lines = (trained.run / "predictions" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [f"test-{number}" for number in range(5)]
    assert rows[1]["reference"] == '{"quantity":1,"product":"screws"}'


def test_every_step_is_logged_once(trained):
    assert [step for step, _ in points(trained.run, "train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in points(trained.run, "val/field_f1")] == [2, 4, 5]


@pytest.mark.thorough
def test_training_lowers_the_loss(trained, exp, tmp_path):
    more = ("training.steps=20", "training.validate_every=9", "optimizer.lr=0.02")
    assert again(trained, exp, tmp_path, "long", *more) == 0
    losses = [loss for _, loss in points(tmp_path / "long", "train/loss")]
    assert losses[-1] < losses[0] - 0.3


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(trained, exp, tmp_path):
    assert again(trained, exp, tmp_path, "same") == 0
    assert again(trained, exp, tmp_path, "other", "seed=1") == 0
    assert adapter(tmp_path / "same") == adapter(trained.run)
    assert optimizer(tmp_path / "same") == optimizer(trained.run)
    assert adapter(tmp_path / "other") != adapter(trained.run)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.thorough)],
)
def test_a_resumed_run_ends_with_the_bytes_of_an_unbroken_one(
    trained, exp, tmp_path, monkeypatch, number, code
):
    """The signal comes while step 3 is under way, which is no step that validates."""
    recorded = Session.record

    def record_and_stop(session, step, epoch, values):
        recorded(session, step, epoch, values)
        if step == 3 and "train/loss" in values:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "record", record_and_stop)
        assert again(trained, exp, tmp_path, "broken") == code
    run = tmp_path / "broken"
    assert record(run)["status"] == "interrupted"
    assert (run / "checkpoints" / "step_000003" / "MANIFEST.json").is_file()
    assert not (run / "checkpoints" / "step_000004").exists()

    assert (
        exp(
            "train",
            f"training.resume={run}",
            "hardware=cpu",
            "hardware.precision=fp32",
            "hardware.cpu_threads=1",
        )
        == 0
    )
    assert record(run)["status"] == "completed"
    assert adapter(run) == adapter(trained.run)
    assert optimizer(run) == optimizer(trained.run)
    losses = points(run, "train/loss")
    assert losses == points(trained.run, "train/loss")


@pytest.mark.thorough
def test_a_run_whose_data_changed_is_not_gone_on_from(trained, exp, tmp_path, capsys):
    lines = (trained.run.parent / "train.jsonl").read_text().splitlines(keepends=True)
    file = tmp_path / "train.jsonl"
    file.write_text("".join(lines))
    assert again(trained, exp, tmp_path, "run", f"task.train={file}") == 0
    file.write_text("".join(lines[1:]))
    hardware = ("hardware=cpu", "hardware.precision=fp32")
    assert exp("train", f"training.resume={tmp_path / 'run'}", *hardware) == 2
    assert "another training data" in capsys.readouterr().err


@pytest.mark.thorough
def test_dotted_columns_of_a_csv_can_be_trained_on(trained, exp, tmp_path):
    for split in ("train", "validation", "test"):
        source = (trained.run.parent / f"{split}.jsonl").read_text().splitlines()
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["message.text", "answer.json"])
            for row in map(json.loads, source):
                writer.writerow([row["input"], json.dumps(row["output"])])
    files = [f"task.{split}={tmp_path / split}.csv" for split in ("train", "validation", "test")]
    fields = ("task.fields.input=message.text", "task.fields.output=answer.json")
    assert again(trained, exp, tmp_path, "csv", *files, *fields, "training.steps=2") == 0
    first = (tmp_path / "csv" / "predictions" / "test.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["reference"] == '{"quantity":0,"product":"nails"}'


@pytest.mark.thorough
def test_nested_fields_can_be_trained_on(trained, exp, tmp_path):
    for split in ("train", "validation", "test"):
        lines = (trained.run.parent / f"{split}.jsonl").read_text().splitlines()
        rows = [
            {"order": {"in": row["input"], "out": row["output"]}} for row in map(json.loads, lines)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    files = [f"task.{split}={tmp_path / split}.jsonl" for split in ("train", "validation", "test")]
    fields = ("task.fields.input=order.in", "task.fields.output=order.out")
    assert again(trained, exp, tmp_path, "nested", *files, *fields) == 0
    assert adapter(tmp_path / "nested") == adapter(trained.run)


def test_rows_that_are_too_long_are_named_and_nothing_is_trained(trained, exp, tmp_path, capsys):
    assert again(trained, exp, tmp_path, "long", "data.max_length_tokens=95") == 2
    error = capsys.readouterr().err
    assert "train rows are longer than 95 tokens" in error
    assert re.search(r"where: .*train\.jsonl, line \d+ .*ids train-", error)
    assert not (tmp_path / "long").exists()


@pytest.mark.thorough
def test_rows_that_are_too_long_are_skipped_when_asked_to(trained, exp, tmp_path, capsys):
    more = ("data.max_length_tokens=95", "data.on_overlong=skip", "training.steps=1")
    assert again(trained, exp, tmp_path, "skipping", *more) == 0
    assert "skipped: train-" in capsys.readouterr().err


def test_a_run_is_never_written_over(trained, exp, capsys):
    assert exp("train", *trained.arguments, "name=first") == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.thorough
def test_limits_on_scored_rows_are_kept(trained, exp, tmp_path):
    limits = ("training.test_limit=3", "training.base_limit=1")
    assert again(trained, exp, tmp_path, "part", *limits, "training.steps=1") == 0
    scores = json.loads((tmp_path / "part" / "scores.json").read_text())
    counts = {
        (split, stage): sheet["field_f1"]["count"]
        for split, stages in scores.items()
        for stage, sheet in stages.items()
    }
    assert counts == {
        **{("test", "before"): 1, ("test", "after"): 3},
        **{("validation", "before"): 1, ("validation", "after"): 2},
    }
    ids = {
        name: [json.loads(line)["id"] for line in file.read_text().splitlines()]
        for name in ("test", "test_before")
        for file in [tmp_path / "part" / "predictions" / f"{name}.jsonl"]
    }
    assert set(ids["test_before"]) < set(ids["test"])


def test_a_tracker_that_cannot_be_reached_does_not_fail_the_run(
    trained, exp, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    more = ("tracker=wandb", "tracker.timeout_seconds=1", "training.steps=2")
    assert again(trained, exp, tmp_path, "alone", *more) == 0
    assert len(points(tmp_path / "alone", "train/loss")) == 2
