import csv
import io
import json
import sys

import pyarrow.parquet as parquet
import pytest

SAME = ("hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1")
ROWS = [
    {"id": "zebra", "input": "please send 3 pins", "customer": 'Ana, "la" de Lugo\n(2)'},
    {"id": "apple", "input": "2 nails, thanks", "customer": "ñandú"},
    {"id": "mango", "input": "ink", "customer": ""},
    {"id": "00017", "input": "please send 40 hooks thanks thanks", "customer": "x"},
]


def write_input(folder, kind):
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import pyarrow as pa

        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def read_output(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
    return parquet.read_table(path).to_pylist()


@pytest.mark.parametrize(
    ("kind", "other"), [("jsonl", "csv"), ("csv", "parquet"), ("parquet", "jsonl")]
)
def test_predictions_keep_order_ids_and_other_columns(trained, exp, tmp_path, kind, other):
    source, target = write_input(tmp_path, kind), tmp_path / f"out.{other}"
    assert exp("predict", f"run={trained.run}", f"input={source}", f"output={target}", *SAME) == 0
    found = read_output(target)
    for name in ("id", "input", "customer"):
        assert [row[name] for row in found] == [row[name] for row in ROWS]
    assert all(row["finish_reason"] in ("stop", "length") for row in found)
    assert all(isinstance(row["prediction_text"], str) for row in found)


def test_the_pipe_from_standard_input_to_standard_output_holds_json_lines_alone(
    trained, exp, tmp_path, monkeypatch, capfd
):
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    spool = tmp_path / "stdin"
    spool.write_text(lines)
    with spool.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert exp("predict", f"run={trained.run}", "input=-", "output=-", *SAME) == 0
    shown = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["id"] for row in shown] == [row["id"] for row in ROWS]


@pytest.mark.thorough
def test_the_prediction_of_a_row_does_not_depend_on_the_rows_beside_it(trained, exp, tmp_path):
    whole, alone = tmp_path / "whole.jsonl", tmp_path / "alone.jsonl"
    source = write_input(tmp_path, "jsonl")
    words = (f"run={trained.run}", *SAME, "cache.enabled=false", "generation.max_new_tokens=24")
    assert exp("predict", *words, f"input={source}", f"output={whole}") == 0
    (tmp_path / "one.jsonl").write_text(f"{json.dumps(ROWS[3])}\n")
    assert exp("predict", *words, f"input={tmp_path / 'one.jsonl'}", f"output={alone}") == 0
    assert read_output(alone) == read_output(whole)[3:]
    assert all(row["prediction_text"] for row in read_output(whole))


def test_rows_with_answers_are_predicted_without_looking_at_them(cached, exp, tmp_path):
    source, target = cached.run.parent / "test.jsonl", tmp_path / "out.jsonl"
    assert exp("predict", f"run={cached.run}", f"input={source}", f"output={target}", *SAME) == 0
    kept = (cached.run / "predictions" / "test.jsonl").read_text().splitlines()
    expected = [(row["id"], row["prediction"]) for row in map(json.loads, kept)]
    assert [(row["id"], row["prediction_text"]) for row in read_output(target)] == expected


def test_a_limit_takes_the_first_rows(trained, exp, tmp_path):
    source, target = write_input(tmp_path, "jsonl"), tmp_path / "out.jsonl"
    words = (f"run={trained.run}", f"input={source}", f"output={target}", "limit=2", *SAME)
    assert exp("predict", *words) == 0
    assert [row["id"] for row in read_output(target)] == ["zebra", "apple"]


def test_several_runs_are_refused(trained, exp, tmp_path, capsys):
    source, target = write_input(tmp_path, "jsonl"), tmp_path / "out.jsonl"
    runs = f"run=[{trained.run},{trained.run}]"
    assert exp("predict", runs, f"input={source}", f"output={target}", *SAME) == 2
    assert f"fix:   run={trained.run}" in capsys.readouterr().err
    assert not target.exists()


def test_no_column_of_the_input_is_written_over(trained, exp, tmp_path, capsys):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"input": "3 pins", "prediction": "mine"}\n')
    words = (f"run={trained.run}", f"input={source}", f"output={tmp_path / 'out.jsonl'}", *SAME)
    assert exp("predict", *words) == 2
    assert "written to: prediction." in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out.xlsx", "no/such/folder/out.jsonl"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    trained, exp, tmp_path, output, capsys
):
    words = (f"run={trained.run}", "input=not-there.jsonl", f"output={tmp_path / output}")
    assert exp("predict", *words, *SAME) == 2
    error = capsys.readouterr().err
    assert "output" in error
    assert "not-there" not in error
