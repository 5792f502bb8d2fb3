"""A task whose outputs are written by position: everything around the model sees JSON."""

import json
from pathlib import Path

import pytest

SCHEMA = {
    "type": "object",
    "properties": {
        "product": {"enum": ["nails", "screws", "pins", "ink", "hooks"]},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 99},
        "remark": {"type": "string", "maxLength": 3},
    },
    "required": ["product", "quantity"],
    "additionalProperties": False,
}


@pytest.fixture
def arguments(trained, tmp_path, monkeypatch):
    """What trains two steps on the small task, by position."""
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    changed = {
        "generation.max_new_tokens": "60",
        "task.schema": schema,
        "task.notation": "positional",
        "training.steps": "2",
        "training.evaluate_base": "false",
        "output_dir": tmp_path,
    }
    given = dict(word.split("=", 1) for word in trained.arguments)
    return {**given, **changed}


def words(arguments):
    return [f"{key}={value}" for key, value in arguments.items()]


@pytest.mark.thorough
def test_training_scoring_and_predicting_speak_json(arguments, exp, tmp_path, capsys):
    assert exp("train", *words(arguments), "generation.constrain=schema", "name=run") == 0
    rows = (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        assert set(json.loads(row["reference"])) == {"product", "quantity"}
        prediction = json.loads(row["prediction"])
        assert {"product", "quantity"} <= set(prediction)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["test"]["after"]
    assert scores["schema_valid"]["value"] == 1
    assert {field["path"] for field in scores["fields"]} >= {"product", "quantity"}

    output = tmp_path / "predictions.jsonl"
    files = (f"input={arguments['task.test']}", f"output={output}")
    assert exp("predict", f"run={tmp_path / 'run'}", "generation.constrain=schema", *files) == 0
    predicted = [json.loads(line)["prediction"] for line in output.read_text().splitlines()]
    assert predicted == [json.loads(json.loads(row)["prediction"]) for row in rows]

    # The same keys in another order: each value would be read as another one's.
    keys = SCHEMA["properties"]
    swapped = {key: keys[key] for key in ("quantity", "product", "remark")}
    schema = Path(arguments["task.schema"])
    schema.write_text(json.dumps(SCHEMA | {"properties": swapped}))
    assert exp("evaluate", f"run={tmp_path / 'run'}") == 2
    assert "in another order, than in training" in capsys.readouterr().err
    looser = keys | {"product": {"enum": [*keys["product"]["enum"], "glue"]}}
    schema.write_text(json.dumps(SCHEMA | {"properties": looser}))
    assert exp("evaluate", f"run={tmp_path / 'run'}") == 0


def test_the_audit_names_rows_that_have_no_place_in_the_schema(arguments, exp, tmp_path, capsys):
    row = {"id": "odd", "input": "one odd row", "output": {"product": "ink", "colour": "red"}}
    rows = Path(arguments["task.train"]).read_text() + json.dumps(row) + "\n"
    arguments["task.train"] = tmp_path / "train.jsonl"
    arguments["task.train"].write_text(rows)
    assert exp("train", *words(arguments)) == 2
    shown = capsys.readouterr()
    assert "odd" in shown.out + shown.err
    assert "at $.colour, the schema does not have this key" in shown.out + shown.err


@pytest.mark.thorough
def test_a_schema_is_needed(arguments, exp, capsys):
    assert exp("train", *words(arguments | {"task.schema": "null"})) == 2
    assert "task.notation=positional needs JSON outputs" in capsys.readouterr().err
