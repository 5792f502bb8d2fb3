import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from exp.config.schema import FieldsConfig, OutputFormat
from exp.data.sources import load_rows
from exp.errors import DataError, UserErrors

GOOD = b'{"input": "a", "output": {}}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fault(folder, name: str, data: bytes, fields=None, **options) -> DataError:
    (folder / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        load_rows(name, fields or FieldsConfig(), **options)
    return caught.value


def row(**columns) -> bytes:
    return json.dumps({"input": "a", "output": {}, **columns}).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"input": "a", "output": }', "Not JSON at column 26: expecting value."),
        (b'{"input": "a"', "Not JSON at column 14: expecting ',' delimiter."),
        (b'{"input": "a"} x', "Not JSON at column 16: more text after the end of the value."),
        (b'{"input": "a\x01"}', "Not JSON at column 13: invalid control character at."),
        (b'["a"]', "The row is a JSON array, not a JSON object."),
        (b"3", "The row is a number, not a JSON object."),
        (b"null", "The row is null, not a JSON object."),
        (row(n=float("nan")), "Not JSON: NaN is not JSON."),
        (row(n=float("-inf")), "Not JSON: -Infinity is not JSON."),
        (b'{"n": 1e999}', "Not JSON: the number 1e999 is too large."),
        (b'{"n": ' + b"9" * 10_000 + b"}", "Not JSON: a number has thousands of digits."),
        (b'{"n": ' + b"[" * 100_000, "Not JSON: nested deeper than 200 levels."),
        (row(n="[[[") [:-1] + b', "m": ' + b"[" * 201 + b"]" * 201 + b"}",
         "Not JSON: nested deeper than 200 levels."),
        (b'{"a": {"x": 1, "x": 2}}', 'Not JSON: the key "x" is there twice in one object.'),
        (b'{"input": "\\ud83d"}', "Not JSON: the escape \\ud83d is half a surrogate pair."),
        (b'{"input": "a\xff"}', "Byte 41 of the file, 0xff, is not UTF-8."),
        (b'{"input": "\xed\xa0\x80"}', "Byte 40 of the file, 0xed, is not UTF-8."),
        (row(input=""), 'The input in "input" is empty.'),
        (row(input=" \n"), 'The input in "input" is empty.'),
        (row(input=3), 'The input in "input" is a number, not a string.'),
        (row(input=None), 'The input in "input" is null, not a string.'),
        (row(output=None), 'The output in "output" is null.'),
        (row(id=""), 'The id in "id" is empty.'),
        (row(id=None), 'The id in "id" is null, not a string or integer.'),
        (row(id=True), 'The id in "id" is true or false, not a string or integer.'),
        (row(output="5"),
         'The output in "output" is a string that holds a number, not a JSON object.'),
        (row(output="{'a': 1}"),
         'The output in "output" is a string that is not JSON: expecting property name enclosed '
         "in double quotes at character 2 of it."),
        (row(output='{"a":1,"a":1}'),
         'The output in "output" is a string that is not JSON: the key "a" is there twice in one '
         "object."),
    ],
)  # fmt: skip
def test_a_bad_line_gives_file_line_and_reason(folder, line, reason):
    error = fault(folder, "rows.jsonl", GOOD + line + b"\n" + GOOD)
    assert error.what == reason
    assert error.where == "rows.jsonl, line 2"
    assert error.fix


def test_surrogate_pairs_are_text(folder):
    (folder / "rows.jsonl").write_bytes(b'{"input": "\\ud83d\\ude00 \\\\ud83d", "output": {}}')
    assert load_rows("rows.jsonl", FieldsConfig())[0].input == "\U0001f600 \\ud83d"


def test_brackets_inside_strings_are_not_nesting(folder):
    text = "[" * 500 + '"' + "{" * 500
    (folder / "rows.jsonl").write_bytes(row(input=text))
    assert load_rows("rows.jsonl", FieldsConfig())[0].input == text


def test_text_outputs_must_be_strings(folder):
    error = fault(folder, "rows.jsonl", row(output={}), output_format=OutputFormat.text)
    assert error.what == 'The output in "output" is a JSON object, not a string.'


def test_missing_columns_are_named_all_at_once_with_the_closest(folder):
    data = b'{"texto": "a", "answer": {"json": {}}, "x": 1}\n' * 3
    fields = FieldsConfig(id="key", input="text", output="answer.jsn")
    error = fault(folder, "rows.jsonl", data, fields)
    assert error.what == (
        'No column "key" for the id and no column "text" for the input and no column "answer.jsn" '
        "for the output; there are: texto, answer, x."
    )
    assert error.where == "rows.jsonl, line 1, and 2 more like it"
    assert error.fix == (
        "task.fields.id=<the column with the id> task.fields.input=texto "
        "task.fields.output=answer.json"
    )


def test_a_repeated_id_names_both_lines(folder):
    data = b"".join(row(id=i) + b"\n" for i in ("x", "y", "x", 1, "1"))
    (folder / "rows.jsonl").write_bytes(data)
    with pytest.raises(UserErrors) as caught:
        load_rows("rows.jsonl", FieldsConfig())
    assert [(error.what, error.where) for error in caught.value.errors] == [
        ('The id "x" of line 1 is there again.', "rows.jsonl, line 3"),
        ('The id "1" of line 4 is there again.', "rows.jsonl, line 5"),
    ]


def test_a_given_id_may_not_be_that_of_a_row_without_one(folder):
    error = fault(folder, "rows.jsonl", row(id="row-2") + b"\n" + row())
    assert error.what == 'The id "row-2" of line 1 is there again.'


def test_the_first_20_faults_are_shown_and_all_are_counted(folder):
    data = b"".join(b" " * i + b"x\n" for i in range(50))
    (folder / "rows.jsonl").write_bytes(data)
    with pytest.raises(UserErrors) as caught:
        load_rows("rows.jsonl", FieldsConfig())
    *shown, rest = caught.value.errors
    assert [error.where for error in shown] == [f"rows.jsonl, line {i}" for i in range(1, 21)]
    assert rest.what.startswith("50 rows of rows.jsonl are bad; the 30 that are not shown")


@pytest.mark.parametrize(
    ("data", "reason", "where"),
    [
        (
            b'[\n{"input": "a", "output": {}},\n{"input": }]',
            "Not JSON at column 11: expecting value.",
            "line 3",
        ),
        (
            b'[{"input": "a", "output": {}}\n\n {"input": 1}]',
            "Not JSON at column 2: expecting ',' or ']' behind an element of the array.",
            "line 3",
        ),
        (
            b'[{"input": "a", "output": {}}',
            "Not JSON at column 30: expecting ',' or ']' behind an element of the array.",
            "line 1",
        ),
        (
            b'[{"input": "a", "output": {}}]\n]',
            "Not JSON at column 1: more text after the end of the array.",
            "line 2",
        ),
        (b'\n{"input": "a", "output": {}}\n', "The file is not an array of objects.", "line 2"),
        (
            b'[{"input": "a", "output": {}},\n4]',
            "The row is a number, not a JSON object.",
            "line 2 (row 2)",
        ),
        (
            b'[{"a": NaN, "b": [1]},\n{"input": "a", "output": {}}]',
            "Not JSON: NaN is not JSON.",
            "line 1 (row 1)",
        ),
        (
            b'[{"input": "\xc3\xa9", "output": {}},\n{"input": "\xff"}]',
            "Byte 43 of the file, 0xff, is not UTF-8.",
            "line 2",
        ),
    ],
)
def test_a_bad_array_gives_file_line_and_reason(folder, data, reason, where):
    error = fault(folder, "rows.json", data)
    assert (error.what, error.where) == (reason, f"rows.json, {where}")


@pytest.mark.parametrize(
    ("data", "reason", "where"),
    [
        (b"input,output\na,{}\nb,{},c\n", "The row has 3 cells, the header 2.", "line 3"),
        (b'input,output\n"a\n\n",{}\nb\n', "The row has 1 cell, the header 2.", "line 5"),
        (
            b'input,output\n\n"a"b,{}\n',
            "Not CSV: ',' expected after '\"'; the rows below it were not read.",
            "line 3",
        ),
        (
            b'input,output\na,{}\n"a,{}\nb,{}\n',
            "Not CSV: unexpected end of data; the rows below it were not read.",
            "line 3",
        ),
        (
            b'input,output\na,{}\n"a\nb\xff",{}\nc,{}\n',
            "Byte 22 of the file, 0xff, is not UTF-8.",
            "line 4",
        ),
        (b"input,input\n", 'The header has the column "input" twice.', "line 1"),
        (b"\xef\xbb\xbfinput,\xff\n", "Byte 9 of the file, 0xff, is not UTF-8.", "line 1"),
    ],
)
def test_a_bad_csv_file_gives_file_line_and_reason(folder, data, reason, where):
    error = fault(folder, "rows.csv", data)
    assert (error.what, error.where) == (reason, f"rows.csv, {where}")


def test_semicolons_are_told_from_commas(folder):
    error = fault(folder, "rows.csv", b"input;output\na;b\n")
    assert "semicolons" in error.fix


def test_utf16_is_recognised(folder):
    error = fault(folder, "rows.jsonl", GOOD.decode().encode("utf-16").split(b"\n")[0])
    assert "iconv -f UTF-16" in error.fix


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl.gz", gzip.compress(GOOD * 1000)[:-9]),
        ("rows.jsonl.gz", GOOD),
        ("rows.jsonl.gz", b""),
        ("rows.jsonl.zst", zstandard.compress(GOOD * 1000)[:-3]),
        ("rows.jsonl.zst", GOOD),
        ("rows.jsonl.zst", b""),
    ],
)
def test_a_damaged_compressed_file_is_an_error_and_leaves_no_copy(folder, name, data):
    error = fault(folder, name, data)
    assert error.what.startswith("The compressed file is damaged: ")
    left = (folder / "cache" / "data").iterdir()
    assert [path for path in left if path.suffix != ".lock"] == []


def test_a_damaged_parquet_file_is_an_error(folder):
    error = fault(folder, "rows.parquet", b"PAR1 no PAR1")
    assert error.what.startswith("The Parquet file cannot be read: ")
    assert error.where == "rows.parquet"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), 'The column "extra" holds nan, which is not JSON.'),
        (b"\x00", 'The column "extra" holds bytes, which JSON has not.'),
    ],
)
def test_values_that_json_has_not_are_errors_with_their_row(folder, value, reason):
    rows = [{"input": "a", "output": "{}", "extra": extra} for extra in (None, value)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    with pytest.raises(DataError) as caught:
        load_rows("rows.parquet", FieldsConfig())
    assert (caught.value.what, caught.value.where) == (reason, "rows.parquet, row 2")


def test_text_of_parquet_that_is_not_utf8_is_an_error_with_its_row(folder):
    inputs = pyarrow.array([b"a", b"\xff"]).view("string")
    table = pyarrow.table({"input": inputs, "output": ["{}", "{}"]})
    pyarrow.parquet.write_table(table, folder / "rows.parquet")
    with pytest.raises(DataError) as caught:
        load_rows("rows.parquet", FieldsConfig())
    assert caught.value.what == 'The text in the column "input" is not UTF-8.'
    assert caught.value.where == "rows.parquet, row 2"


def test_a_flipped_byte_in_a_parquet_file_with_checksums_is_found(folder):
    rows = [{"input": f"row {n}", "output": "{}"} for n in range(3000)]
    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows),
        path,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
        row_group_size=2000,
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(b"row 2500", b"row 2501"))
    with pytest.raises(DataError, match="CRC checksum") as caught:
        load_rows("rows.parquet", FieldsConfig())
    assert caught.value.where == "rows.parquet, behind row 1024"


def test_a_bad_parquet_row_is_called_by_its_rank(folder):
    rows = [{"input": "a", "output": "{}"}, {"input": "", "output": "{}"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    with pytest.raises(DataError) as caught:
        load_rows("rows.parquet", FieldsConfig())
    assert caught.value.where == "rows.parquet, row 2"


def test_a_missing_file_names_the_closest(folder):
    (folder / "train.jsonl").write_bytes(GOOD)
    (folder / "notes.md").write_bytes(GOOD)
    with pytest.raises(DataError) as caught:
        load_rows("trian.jsonl", FieldsConfig(), where="task.train")
    assert caught.value.what == "There is no file trian.jsonl."
    assert caught.value.where == "task.train=trian.jsonl"
    assert caught.value.fix == "did you mean train.jsonl?"


@pytest.mark.parametrize("name", ["none/rows.jsonl", ".", "builtin:no_such_task/rows.jsonl"])
def test_what_is_not_a_file_is_an_error(name):
    with pytest.raises(DataError) as caught:
        load_rows(name, FieldsConfig())
    assert name in caught.value.what
    assert caught.value.fix


def test_an_unknown_extension_lists_the_known_ones(folder):
    error = fault(folder, "rows.xlsx", b"")
    assert 'its extension ".xlsx"' in error.what
    assert ".parquet" in error.fix


@pytest.mark.parametrize("name", ["a" * 300 + ".jsonl", "~nobody_is_called_so/rows.jsonl"])
def test_a_path_that_leads_nowhere_is_an_error(name):
    with pytest.raises(DataError, match="There is no way to") as caught:
        load_rows(name, FieldsConfig(), where="task.train")
    assert caught.value.where == f"task.train={name}"


def test_a_pipe_is_no_file(folder):
    os.mkfifo(folder / "rows.jsonl")
    with pytest.raises(DataError, match="is a pipe or a device"):
        load_rows("rows.jsonl", FieldsConfig())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.parquet"])
def test_a_file_that_the_system_refuses_to_read_is_an_error(folder, name):
    (folder / name).symlink_to("/proc/self/mem")  # there, yet nothing can be read from its start
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_rows(name, FieldsConfig())
    assert caught.value.where == name
