import json
from pathlib import Path

from exp.data import tasks
from exp.data.free_fields import MOST_LISTED, learn_free_fields, string_fields
from exp.records import Example


def orders() -> list[Example]:
    file = Path(tasks.__path__[0]) / "orders_es" / "train.jsonl"
    rows = map(json.loads, file.read_text("utf-8").splitlines())
    return [Example(row["id"], row["input"], row["output"]) for row in rows]


def test_fields_are_free_where_they_have_many_values():
    names = [f"n{chr(97 + i % 26)}{i}" for i in range(MOST_LISTED + 1)]
    rows = [Example(name, "", {"name": name, "unit": f"u{i % 5}"}) for i, name in enumerate(names)]
    assert learn_free_fields(rows) == {("name",)}
    assert learn_free_fields(rows[:-1]) == frozenset()
    assert learn_free_fields(orders()) == {("lineas", "[]", "producto")}


def test_fields_of_an_answer_are_those_with_strings():
    output = {"a": "x", "b": [{"c": "y", "d": 1}, {"c": None}], "e": ["z"]}
    assert string_fields(output) == {("a",), ("b", "[]", "c"), ("e", "[]")}
