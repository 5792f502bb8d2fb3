import datetime
import gzip
import io
import json
import multiprocessing
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.sources import Examples, load_rows
from exp.data.sources.datafile import DataFile
from exp.data.sources.unpack import cached_copy
from exp.errors import DataError
from exp.records import Example

FIELDS = FieldsConfig(input="text", output="target")
ROWS = [
    {"id": "a", "text": "uno, dos\nañejo", "target": {"n": 1}, "source": "web"},
    {"id": "b", "text": 'dice "hola"', "target": {"n": [1.5, None]}, "source": "tel"},
    {"id": "c", "text": "tres\u2028cuatro\u0085", "target": {}, "source": "☎"},
]
EXAMPLES = [Example(r["id"], r["text"], r["target"], {"source": r["source"]}) for r in ROWS]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def json_lines(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def delimited(rows, separator) -> bytes:
    def cell(value):
        text = value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [separator.join(rows[0])]
    lines += [separator.join(cell(value) for value in row.values()) for row in rows]
    return "\r\n".join(lines).encode()


def parquet(rows) -> bytes:
    rows = [{**row, "target": json.dumps(row["target"])} for row in rows]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


CONTENT = {
    ".jsonl": json_lines(ROWS),
    ".ndjson": json_lines(ROWS),
    ".json": json.dumps(ROWS, ensure_ascii=False, indent=1).encode(),
    ".csv": delimited(ROWS, ","),
    ".tsv": delimited(ROWS, "\t"),
    ".parquet": parquet(ROWS),
}


def write(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", CONTENT)
def test_every_format_gives_the_same_examples(tmp_path, suffix, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    path = write(tmp_path, f"rows{suffix}{packed}", pack(CONTENT[suffix]))
    assert list(load_rows(path, FIELDS)) == EXAMPLES


def test_extensions_may_be_in_capitals(tmp_path):
    path = write(tmp_path, "ROWS.CSV.GZ", gzip.compress(CONTENT[".csv"]))
    assert list(load_rows(path, FIELDS)) == EXAMPLES


def test_a_byte_order_mark_and_carriage_returns_change_nothing(tmp_path):
    data = b"\xef\xbb\xbf" + CONTENT[".jsonl"].replace(b"\n", b"\r\n")
    assert list(load_rows(write(tmp_path, "rows.jsonl", data), FIELDS)) == EXAMPLES


@pytest.mark.parametrize("suffix", [".json", ".csv", ".tsv"])
def test_a_byte_order_mark_changes_nothing(tmp_path, suffix):
    path = write(tmp_path, f"rows{suffix}", b"\xef\xbb\xbf" + CONTENT[suffix])
    assert list(load_rows(path, FIELDS)) == EXAMPLES


def test_the_last_line_may_do_without_its_end(tmp_path):
    path = write(tmp_path, "rows.jsonl", CONTENT[".jsonl"].rstrip())
    assert list(load_rows(path, FIELDS)) == EXAMPLES


def test_rows_without_an_id_are_called_by_split_and_line(tmp_path):
    data = b'\n{"text": "a", "target": {}}\n \t\r\n{"text": "b", "target": {}}'
    examples = load_rows(write(tmp_path, "rows.jsonl", data), FIELDS, split="test")
    assert [example.id for example in examples] == ["test-2", "test-4"]


def test_csv_rows_are_called_by_the_line_where_they_begin(tmp_path):
    data = b'text,target\n"a\n\nb",{}\n\nc,{}\n'
    examples = load_rows(write(tmp_path, "rows.csv", data), FIELDS)
    assert [(e.id, e.input) for e in examples] == [("row-2", "a\n\nb"), ("row-6", "c")]


def test_rows_of_an_array_are_called_by_their_rank(tmp_path):
    data = b'[{"text": "a", "target": {}}, {"text": "b", "target": {}}]'
    examples = load_rows(write(tmp_path, "rows.json", data), FIELDS)
    assert [example.id for example in examples] == ["row-1", "row-2"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    assert len(load_rows(write(tmp_path, name, b""), FIELDS)) == 0


def test_standard_input_is_read_as_json_lines(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONTENT[".jsonl"])))
    assert list(load_rows("-", FIELDS)) == EXAMPLES


def test_rows_to_predict_need_no_output(tmp_path):
    data = b'{"text": "a"}\n{"text": "b", "target": null}\n{"text": "c", "target": {"x": 1}}\n'
    examples = load_rows(write(tmp_path, "rows.jsonl", data), FIELDS, require_output=False)
    assert [example.output for example in examples] == [None, None, {"x": 1}]


def test_nested_columns_are_found_and_leave_the_meta(tmp_path):
    row = {"m": {"text": {"es": "hola", "en": "hi"}, "k": 1}, "answer": {"json": {"x": 1}}}
    fields = FieldsConfig(input="m.text.es", output="answer.json")
    path = write(tmp_path, "rows.jsonl", json_lines([row]))
    expected = Example("row-1", "hola", {"x": 1}, {"m": {"text": {"en": "hi"}, "k": 1}})
    assert list(load_rows(path, fields)) == [expected]


@pytest.mark.parametrize(
    "row",
    [
        {"a.b.c": "right", "a": {"b": {"c": "wrong"}}, "output": {}},
        {"a.b": {"c": "right"}, "a": {"b": {"c": "wrong"}}, "output": {}},
        {"a": {"b.c": "right", "b": {"c": "wrong"}}, "output": {}},
    ],
)
def test_a_name_that_holds_dots_itself_wins(tmp_path, row):
    path = write(tmp_path, "rows.jsonl", json_lines([row]))
    assert load_rows(path, FieldsConfig(input="a.b.c"))[0].input == "right"


def test_one_column_may_be_input_and_output(tmp_path):
    path = write(tmp_path, "rows.jsonl", b'{"text": "a"}')
    fields = FieldsConfig(input="text", output="text")
    examples = load_rows(path, fields, output_format=OutputFormat.text)
    assert examples[0] == Example("row-1", "a", "a", {})


@pytest.mark.parametrize("target", [{"a": 1}, [1], 5, 1.5, True, '{"a": 1}', "[1]"])
def test_outputs_may_be_any_json_or_text_that_holds_an_object_or_array(tmp_path, target):
    path = write(tmp_path, "rows.jsonl", json_lines([{"text": "a", "target": target}]))
    expected = json.loads(target) if isinstance(target, str) else target
    assert load_rows(path, FIELDS)[0].output == expected


def test_text_outputs_stay_as_they_are(tmp_path):
    path = write(tmp_path, "rows.jsonl", json_lines([{"text": "a", "target": '{"a":  1} '}]))
    assert load_rows(path, FIELDS, output_format=OutputFormat.text)[0].output == '{"a":  1} '


def test_integers_may_be_ids(tmp_path):
    path = write(tmp_path, "rows.jsonl", b'{"id": 7, "text": "a", "target": {}}')
    assert load_rows(path, FIELDS)[0].id == "7"


def test_ids_can_be_switched_off(tmp_path):
    path = write(tmp_path, "rows.jsonl", CONTENT[".jsonl"])
    examples = load_rows(path, FieldsConfig(id=None, input="text", output="target"))
    assert examples[1].id == "row-2"
    assert examples[1].meta == {"id": "b", "source": "tel"}


def test_parquet_types_become_json(tmp_path):
    row = {
        "text": "a",
        "target": {"price": Decimal("12.50"), "count": Decimal("3.00"), "tags": ["x"]},
        "day": datetime.date(2024, 2, 29),
        "at": datetime.datetime(2024, 2, 29, 12, 30),
    }
    table = pyarrow.Table.from_pylist([row])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    example = load_rows(str(tmp_path / "rows.parquet"), FIELDS)[0]
    assert example.output == {"price": 12.5, "count": 3, "tags": ["x"]}
    assert example.meta == {"day": "2024-02-29", "at": "2024-02-29T12:30:00"}


def test_json_columns_of_parquet_keep_objects_of_varying_keys(tmp_path):
    datasets = pytest.importorskip("datasets")
    targets = [{"f": "x", "a": {"name": "n"}}, {"f": "y", "a": {"year": 1, "tags": [{}]}}]
    features = {"text": datasets.Value("string")}
    features["target"] = {"f": datasets.Value("string"), "a": datasets.Json()}
    rows = [{"text": "a", "target": target} for target in targets]
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    pyarrow.parquet.write_table(table.data.table, tmp_path / "rows.parquet")
    examples = load_rows(str(tmp_path / "rows.parquet"), FIELDS)
    assert [example.output for example in examples] == targets


def test_unpacked_copies_are_made_once(tmp_path, cache_folder):
    path = write(tmp_path, "rows.jsonl.gz", gzip.compress(CONTENT[".jsonl"]))
    load_rows(path, FIELDS)
    (copy,) = (cache_folder / "data").glob("*.jsonl")
    made = copy.stat().st_mtime_ns
    load_rows(path, FIELDS)
    assert [copy] == list((cache_folder / "data").glob("*.jsonl"))
    assert copy.stat().st_mtime_ns == made


def test_a_copy_in_use_stays_where_another_process_wants_it_at_the_same_time():
    begun = threading.Event()

    def produce():
        begun.set()
        time.sleep(0.2)
        yield b"{}\n"

    with ThreadPoolExecutor() as pool:
        first = pool.submit(cached_copy, "key", ".jsonl", produce)
        begun.wait()
        second = pool.submit(cached_copy, "key", ".jsonl", produce)
        in_use = DataFile(first.result(), "rows")
        assert second.result() == in_use.path
    in_use.check_unchanged()


@pytest.fixture
def examples(tmp_path) -> Examples:
    return load_rows(write(tmp_path, "rows.jsonl", CONTENT[".jsonl"]), FIELDS)


def test_examples_are_a_sequence(examples):
    assert len(examples) == 3
    assert examples[-1] == EXAMPLES[-1]
    assert list(examples[::-1]) == EXAMPLES[::-1]
    assert EXAMPLES[1] in examples
    with pytest.raises(IndexError):
        examples[3]


def test_each_access_gives_a_row_of_its_own(examples):
    examples[0].output["n"] = 2
    assert examples[0] == EXAMPLES[0]


def test_examples_can_be_pickled(examples):
    assert list(examples) == EXAMPLES  # the file is open now
    copy = pickle.loads(pickle.dumps(examples))
    assert list(copy) == EXAMPLES
    assert copy.content_key == examples.content_key


def read_first(examples) -> Example:
    return examples[0]


def test_examples_can_be_read_in_other_processes(examples):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_first, [examples[:1], examples[1:]]) == EXAMPLES[:2]


def test_the_content_key_follows_bytes_fields_and_selection(tmp_path, examples):
    same = load_rows(write(tmp_path, "other.jsonl", CONTENT[".jsonl"]), FIELDS)
    assert same.content_key == examples.content_key
    changed = CONTENT[".jsonl"].replace(b"uno", b"una")
    keys = {
        examples.content_key,
        examples[1:].content_key,
        load_rows(write(tmp_path, "changed.jsonl", changed), FIELDS).content_key,
        load_rows(str(tmp_path / "other.jsonl"), FieldsConfig(None, "text", "target")).content_key,
        load_rows(str(tmp_path / "other.jsonl"), FIELDS, split="test").content_key,
    }
    assert len(keys) == 5


def test_a_file_that_is_cut_short_while_in_use_is_an_error(tmp_path, examples):
    assert examples[0] == EXAMPLES[0]
    (tmp_path / "rows.jsonl").write_bytes(CONTENT[".jsonl"][:-20])
    with pytest.raises(DataError, match="changed or removed") as caught:
        examples[2]
    assert caught.value.where == str(tmp_path / "rows.jsonl")


def test_a_csv_row_whose_quotes_are_wrong_by_now_is_an_error(tmp_path):
    examples = load_rows(write(tmp_path, "rows.csv", CONTENT[".csv"]), FIELDS)
    assert examples[0] == EXAMPLES[0]
    data = CONTENT[".csv"].replace(b'"uno', b'"u"o')
    (tmp_path / "rows.csv").write_bytes(data)
    with pytest.raises(DataError, match="changed or removed"):
        examples[0]


def test_a_copy_in_another_process_refuses_a_file_that_has_changed(tmp_path, examples):
    frozen = pickle.dumps(examples)
    (tmp_path / "rows.jsonl").write_bytes(CONTENT[".jsonl"] + b"\n")
    with pytest.raises(DataError, match="changed or removed"):
        pickle.loads(frozen)[0]
