import json
import os
import re
from pathlib import Path

import pytest

MODEL = ("model=tiny", "task=jsonl", "task.name=orders", "task.instruction=Write the order.")


def sentence(number):
    kinds = ("nails for the shed", "screws, long ones", "pins in a tin", "ink, blue or black")
    return f"order {number * 37} of {kinds[number % 4]}, call {number * number + 100} first"


@pytest.fixture
def task(tmp_path):
    """Write a clean task; return its arguments and a function that changes a row."""
    for split, numbers in (
        ("train", range(12)),
        ("validation", range(12, 15)),
        ("test", range(15, 18)),
    ):
        rows = [
            {"id": f"{split}-{n}", "input": sentence(n), "output": {"quantity": n * 37}}
            for n in numbers
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def change(split, number, **fields):
        file = tmp_path / f"{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[number] |= fields
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    files = [f"task.{split}={tmp_path / split}.jsonl" for split in ("train", "validation", "test")]
    return (*MODEL, *files, f"output_dir={tmp_path / 'out'}"), change


def result(tmp_path):
    (folder,) = (tmp_path / "out").iterdir()
    return json.loads((folder / "audit.json").read_text())


def test_a_clean_task_gives_a_table_a_file_and_a_page(task, exp, tmp_path, capsys):
    assert exp("audit", *task[0]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert re.fullmatch(r"audit-\d{8}-\d{6}-[0-9a-f]{4}", folder.name)
    assert {path.name for path in folder.iterdir()} == {"audit.json", "audit.html"}
    shown = capsys.readouterr().out
    assert "0 errors, 0 warnings; the data can be trained on" in shown
    assert str(folder / "audit.html") in shown
    content = result(tmp_path)
    assert content["findings"] == []
    assert [split["num_rows"] for split in content["splits"]] == [12, 3, 3]
    assert content["config"]["task"]["name"] == "orders"


def test_warnings_leave_the_exit_code_at_0(task, exp, tmp_path):
    arguments, change = task
    change("test", 0, input=sentence(0))
    assert exp("audit", *arguments) == 0
    assert [f["check"] for f in result(tmp_path)["findings"]] == ["conflict", "leak"]


def test_errors_give_the_exit_code_1(task, exp, tmp_path, capsys):
    arguments, change = task
    change("train", 2, output=5)
    assert exp("audit", *arguments) == 1
    (finding,) = result(tmp_path)["findings"]
    assert (finding["check"], finding["rows"][0]["id"]) == ("unwritable_output", "train-2")
    assert f"{tmp_path}/train.jsonl, line 3" in capsys.readouterr().out


def test_a_row_that_cannot_be_read_is_the_ordinary_error(task, exp, tmp_path, capsys):
    arguments, change = task
    change("validation", 1, input="")
    assert exp("audit", *arguments) == 2
    assert "validation.jsonl, line 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_skipped_row_is_listed_by_its_id(task, exp, tmp_path):
    arguments, change = task
    change("train", 4, input=sentence(4) + " please" * 40)
    arguments = (*arguments, "data.max_length_tokens=300")
    assert exp("audit", *arguments, "data.on_overlong=skip") == 0
    (finding,) = result(tmp_path)["findings"]
    assert [(row["id"], finding["severity"]) for row in finding["rows"]] == [("train-4", "warning")]


def test_settings_without_effect_are_named(task, exp, capsys):
    assert exp("audit", *task[0], "data.limit=5") == 0
    assert "data.limit has no effect in this run: exp audit looks at all rows" in (
        capsys.readouterr().err
    )


TRAINING = (
    *("hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1", "training.steps=1"),
    *("training.evaluate_base=false", "training.validation_limit=1", "training.test_limit=1"),
    *("generation.max_new_tokens=2", "lora.r=2", "name=run"),
)


def test_errors_stop_a_training_before_a_run_folder_is_made(task, exp, tmp_path, capsys):
    arguments, change = task
    change("train", 2, output=5)
    change("train", 4, input=sentence(4) + " please" * 40)
    assert exp("train", *arguments, *TRAINING, "data.max_length_tokens=300") == 2
    error = capsys.readouterr().err
    assert "unwritable_output: 1 of 12 train rows have an output that cannot be written" in error
    assert "over_long: 1 of 12 train rows are longer than 300 tokens" in error
    assert f"where: {tmp_path}/train.jsonl, line 3" in error
    assert "ids train-4\n" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_warnings_are_logged_once_and_the_second_training_audits_nothing(
    task, exp, tmp_path, capsys
):
    arguments, change = task
    change("test", 0, input=sentence(0), output={"quantity": 0})
    assert exp("train", *arguments, *TRAINING) == 0
    first = capsys.readouterr().err
    assert first.count("audit: leak: 1 of 3 test rows") == 1
    assert "auditing:" in first
    assert json.loads((tmp_path / "out" / "run" / "run.json").read_text())["audit"] == {
        "rows": {"train": 12, "validation": 3, "test": 3},
        "errors": {},
        "warnings": {"test/leak": 1},
    }
    assert len(list(Path(os.environ["EXP_CACHE_DIR"]).glob("audits/*.json"))) == 1
    assert exp("audit", *arguments) == 0
    assert "auditing:" not in capsys.readouterr().err
