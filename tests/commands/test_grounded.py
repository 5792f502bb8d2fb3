"""Grounded decoding from training to prediction: names and numbers are those of the input."""

import json

import pytest

SCHEMA = {
    "type": "object",
    "properties": {
        "product": {"type": "string", "minLength": 1},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["product", "quantity"],
    "additionalProperties": False,
}
SAME = ("hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1")
NAMES = [f"{a}{b}{c}" for a in ("ba", "co", "di", "fu") for b in ("lo", "mu", "ne", "pi")
         for c in ("ra", "so", "ta", "vu")]  # fmt: skip


def rows(names):
    return [
        {
            "id": name,
            "input": f"please send {i % 9 + 1} {name}s",
            "output": {"product": name, "quantity": i % 9 + 1},
        }
        for i, name in enumerate(names)
    ]


@pytest.fixture
def words(trained, tmp_path, monkeypatch):
    """What trains two steps on names of which no two rows have the same."""
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    files = {"train": NAMES[:56], "validation": NAMES[56:60], "test": NAMES[60:]}
    for split, names in files.items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows(names))
        (tmp_path / f"{split}.jsonl").write_text(text)
    changed = {f"task.{split}": tmp_path / f"{split}.jsonl" for split in files}
    changed |= {
        "generation.constrain": "grounded",
        "generation.max_new_tokens": "60",
        "task.schema": tmp_path / "schema.json",
        "training.steps": "2",
        "output_dir": tmp_path,
    }
    given = dict(word.split("=", 1) for word in trained.arguments)
    return [f"{key}={value}" for key, value in {**given, **changed}.items()]


def test_names_and_numbers_are_those_of_the_input_from_training_to_prediction(
    words, exp, tmp_path, capsys
):
    assert exp("train", *words, "name=run") == 0
    assert (tmp_path / "run" / "grounding.json").is_file()
    scored = (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(scored) == 4
    for row in map(json.loads, scored):
        predicted = json.loads(row["prediction"])
        assert predicted["product"]
        assert all(part in row["input"] for part in predicted["product"].split())
        assert predicted["quantity"] == json.loads(row["reference"])["quantity"]

    # The base model knows the schema, and nothing of training rows.
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["test"]
    before = (tmp_path / "run" / "predictions" / "test_before.jsonl").read_text().splitlines()
    for row in map(json.loads, before):
        begun = row["prediction"].removeprefix('{"product":"')
        assert begun != row["prediction"]
        assert begun[:4] not in row["input"]
    assert scores["after"]["schema_valid"]["value"] == 1

    capsys.readouterr()
    assert exp("evaluate", f"run={tmp_path / 'run'}", *SAME, "split=test") == 0
    assert "4 hits, 0 misses" in capsys.readouterr().err

    output = tmp_path / "out.jsonl"
    files = (f"input={tmp_path / 'test.jsonl'}", f"output={output}")
    assert exp("predict", f"run={tmp_path / 'run'}", *SAME, *files) == 0
    predicted = [json.loads(line)["prediction"] for line in output.read_text().splitlines()]
    assert predicted == [json.loads(json.loads(row)["prediction"]) for row in scored]

    (tmp_path / "run" / "grounding.json").unlink()
    capsys.readouterr()
    assert exp("evaluate", f"run={tmp_path / 'run'}", *SAME, "split=test") != 0
    told = capsys.readouterr().err
    assert "fix:   generation.constrain=schema, or train again" in told
    assert "Traceback" not in told


def test_a_lexicon_that_is_not_there_is_told_before_the_run_begins(words, exp, tmp_path, capsys):
    """Numbers are read by it, whether there are variants or not."""
    assert exp("train", *words, "augmentation.lexicon=nowhere.toml", "name=run") == 2
    told = capsys.readouterr().err
    assert "augmentation.lexicon=nowhere.toml" in told
    assert "no effect" not in told
    assert not (tmp_path / "run").exists()


def test_a_base_model_alone_has_no_rows_to_learn_from(words, exp, capsys):
    kept = ("model=", "hardware", "task.", "task=", "generation.")
    mine = [word for word in words if word.startswith(kept)]
    assert exp("evaluate", *mine, "split=test") == 2
    assert "generation.constrain=grounded needs a run" in capsys.readouterr().err
