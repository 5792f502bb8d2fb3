import json
import subprocess
import sys

import pytest

from exp.config.schema import FieldsConfig, OutputFormat, TaskConfig
from exp.data.task import load_task
from exp.errors import ConfigError, DataError, UserErrors


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 200), ("validation", 7), ("test", 5)):
        rows = ({"text": f"{split} {i}", "target": {"n": i}} for i in range(count))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def config(**settings) -> TaskConfig:
    fields = FieldsConfig(input="text", output="target")
    return TaskConfig(**{"name": "jsonl", "train": "train.jsonl", "fields": fields, **settings})


def sizes(task) -> dict[str, int]:
    return {name: len(rows) for name, rows in task.splits.items()}


def test_given_files_are_the_splits():
    task = load_task(config(validation="validation.jsonl", test="test.jsonl"))
    assert sizes(task) == {"train": 200, "validation": 7, "test": 5}
    assert task.split("test")[0].input == "test 0"
    assert task.split("test")[0].id == "test-1"


def test_splits_without_a_file_are_split_off_the_training_rows():
    split = sizes(load_task(config()))
    assert sum(split.values()) == 200
    assert list(split) == ["train", "validation", "test"]


def test_only_the_missing_splits_are_split_off():
    task = load_task(config(test="test.jsonl"))
    assert len(task.split("test")) == 5
    assert len(task.split("train")) + len(task.split("validation")) == 200


def test_a_fraction_of_zero_without_a_file_leaves_the_split_out():
    task = load_task(config(test_fraction=0))
    assert not task.has_split("test")
    with pytest.raises(DataError, match="has no test split, only: train, validation"):
        task.split("test")


def test_splits_that_are_not_wanted_are_not_read():
    task = load_task(
        config(train="gone.jsonl", validation="gone.jsonl", test="test.jsonl"), ["test"]
    )
    assert sizes(task) == {"test": 5}
    assert sizes(load_task(config(train=None), [])) == {}


def test_a_split_is_the_same_whether_or_not_the_others_are_wanted():
    whole, alone = load_task(config()), load_task(config(), ["validation"])
    assert sizes(alone) == {"validation": sizes(whole)["validation"]}
    assert alone.split("validation").content_key == whole.split("validation").content_key


def test_a_task_without_training_rows_says_what_to_type():
    with pytest.raises(ConfigError) as caught:
        load_task(config(train=None))
    assert caught.value.what == "The task jsonl has no training rows: task.train is not set."
    assert caught.value.fix.startswith("task.train=<a .jsonl")


def test_a_file_without_rows_is_an_error(folder):
    (folder / "test.jsonl").write_bytes(b"\n")
    with pytest.raises(DataError) as caught:
        load_task(config(test="test.jsonl"))
    assert caught.value.what == "The file holds no rows."
    assert caught.value.where == "task.test=test.jsonl"


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_a_fraction_outside_its_range_is_an_error(value):
    with pytest.raises(ConfigError) as caught:
        load_task(config(test_fraction=value))
    assert caught.value.where == "task.test_fraction"


def test_fractions_that_leave_nothing_are_an_error():
    with pytest.raises(ConfigError, match="Nothing is left to train on"):
        load_task(config(test_fraction=0.5, validation_fraction=0.5))


def test_a_fraction_beside_a_file_does_not_count():
    assert len(load_task(config(test="test.jsonl", test_fraction=1.0)).split("test")) == 5


def test_the_errors_of_all_files_come_together(folder):
    (folder / "test.jsonl").write_bytes(b'{"text": 1}\nx\n')
    (folder / "broken.json").write_bytes(b"{")
    with pytest.raises(UserErrors) as caught:
        load_task(
            config(
                train="trian.jsonl",
                validation="validation.jsonl",
                test="test.jsonl",
                instruction="a",
                instruction_file="b",
                schema="broken.json",
            )
        )
    assert [error.where for error in caught.value.errors] == [
        "task.instruction and task.instruction_file",
        "task.schema=broken.json",
        "test.jsonl, line 1",
        "test.jsonl, line 2",
        "task.train=trian.jsonl",
    ]


def test_the_instruction_is_literal_but_for_line_feeds_at_its_end(folder):
    text = "Extrae ${oc.env:HOME} {x} %s\n\n  los datos. "
    (folder / "i.txt").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load_task(config(instruction_file="i.txt")).instruction == text
    assert load_task(config(instruction=text + "\n")).instruction == text
    assert load_task(config()).instruction == ""


def test_an_instruction_that_is_not_utf8_is_an_error(folder):
    (folder / "i.txt").write_bytes(b"a\xf1o")
    with pytest.raises(DataError) as caught:
        load_task(config(instruction_file="i.txt"))
    assert caught.value.what == "Byte 1 is not UTF-8."


def test_a_schema_is_parsed(folder):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    (folder / "s.json").write_text(json.dumps(schema))
    assert load_task(config(schema="s.json")).schema == schema
    assert load_task(config()).schema is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"type": "objekt"}', "not a valid JSON Schema, at $.type"),
        ("[]", "not a JSON object"),
        ('{"type": }', "not JSON at character 10"),
        ('{"type": "object", "type": "array"}', 'the key "type" is there twice'),
    ],
)
def test_a_wrong_schema_is_an_error(folder, text, reason):
    (folder / "s.json").write_text(text)
    with pytest.raises(DataError) as caught:
        load_task(config(schema="s.json"))
    assert reason in caught.value.what
    assert caught.value.where == "task.schema=s.json"


def test_a_text_task_takes_strings(folder):
    (folder / "train.jsonl").write_text('{"text": "a", "target": "b"}')
    settings = {"output_format": OutputFormat.text, "test_fraction": 0, "validation_fraction": 0}
    assert load_task(config(**settings)).split("train")[0].output == "b"


def test_loading_a_task_imports_neither_torch_nor_datasets():
    code = "import sys, exp.data.task; print({'torch', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_several_training_files_are_one_split():
    task = load_task(
        config(train=["train.jsonl", "validation.jsonl"], validation="test.jsonl", test_fraction=0)
    )
    rows = task.split("train")
    assert len(rows) == 207
    assert (rows[0].id, rows[200].id) == ("train-1", "train2-1")
    assert rows.sources.tolist() == [0] * 200 + [1] * 7


def test_all_training_files_are_split_by_their_inputs(folder):
    text = (folder / "train.jsonl").read_text()
    (folder / "copy.jsonl").write_text(text)
    split = load_task(config(train=["train.jsonl", "copy.jsonl"])).splits
    inputs = {name: {row.input for row in rows} for name, rows in split.items()}
    assert sum(map(len, inputs.values())) == 200
    assert set(split["test"].sources.tolist()) == {0, 1}


def test_faults_of_all_training_files_are_shown_together(folder):
    (folder / "bad.jsonl").write_text("[]\n")
    with pytest.raises(UserErrors) as caught:
        load_task(config(train=["bad.jsonl", "train.jsonl", "gone.jsonl"]))
    assert [error.where for error in caught.value.errors] == [
        "bad.jsonl, line 1",
        "task.train=gone.jsonl",
    ]
