import csv
import io
import json
import os
import sys

import pyarrow.parquet as parquet
import pytest

from exp.commands.prediction_file import check_columns, check_output, write_predictions
from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.task import Task
from exp.errors import DataError
from exp.records import Example, Prediction


def write(path, *metas, fields=None):
    examples = [Example(f"row-{i}", f"text {i}", meta=meta) for i, meta in enumerate(metas)]
    predictions = [Prediction(example.id, '{"a":[1]}', "stop", 4) for example in examples]
    task = Task("orders", "Write JSON.", OutputFormat.json, None, None, "field_f1", {})
    return write_predictions(str(path), examples, predictions, task, fields or FieldsConfig())


def test_every_line_end_in_a_cell_of_csv_comes_back(tmp_path):
    texts = ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "\r"]
    write(tmp_path / "out.csv", *({"note": text} for text in texts))
    content = (tmp_path / "out.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["note"] for row in rows] == texts


def test_parquet_has_the_columns_of_all_rows(tmp_path):
    write(tmp_path / "out.parquet", {"a": 1}, {"b": "x"}, {})
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["a"] for row in rows] == [1, None, None]
    assert [row["b"] for row in rows] == [None, "x", None]


def test_a_column_of_several_types_is_text_in_parquet(tmp_path):
    values = [1, "x", None, 2.5, [1, "ñ"], True, 10**30]
    write(tmp_path / "out.parquet", *({"a": value} for value in values))
    found = [row["a"] for row in parquet.read_table(tmp_path / "out.parquet").to_pylist()]
    assert found == ["1", "x", None, "2.5", '[1, "ñ"]', "true", str(10**30)]


def test_standard_output_gets_utf8_whatever_its_encoding(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write("-", {"note": "ñandú ☃"})
    assert json.loads(raw.getvalue())["note"] == "ñandú ☃"


def test_a_column_named_id_is_kept_where_rows_are_named_by_their_line(tmp_path):
    path = tmp_path / "out.jsonl"
    write(path, {"id": "shared"}, {"id": "shared"}, fields=FieldsConfig(id=None))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [
        "shared",
        "shared",
    ]


def test_a_column_that_predictions_are_written_to_is_refused():
    rows = [Example("1", "x"), Example("2", "x", meta={"prediction": 1, "finish_reason": "?"})]
    with pytest.raises(DataError, match="finish_reason, prediction"):
        check_columns(rows, "rows.jsonl")
    check_columns(rows[:1], "rows.jsonl")


def test_an_output_that_would_replace_its_input_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is the input") as caught:
        check_output("rows.jsonl", str(tmp_path / "rows.jsonl"))
    assert caught.value.fix == "output=rows.predicted.jsonl"
    check_output("rows.jsonl", "-")


def test_an_extension_may_be_in_capitals(tmp_path):
    check_output(str(tmp_path / "OUT.CSV"), "-")
    write(tmp_path / "OUT.CSV", {})
    assert (tmp_path / "OUT.CSV").read_bytes().startswith(b"id,input,prediction,")


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        check_output(str(tmp_path / "out.jsonl"), "-")


def test_an_output_in_a_folder_that_is_read_only_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path or mode != os.W_OK)
    with pytest.raises(DataError, match="read-only"):
        check_output(str(tmp_path / "out.jsonl"), "-")
