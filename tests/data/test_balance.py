import numpy as np
import pytest

from exp.data.balance import read_values
from exp.errors import ConfigError
from exp.records import Example

EXAMPLES = [
    Example("a", "x", {"kind": "new", "to": {"city": "Lima"}, "items": [1]}, {"source": "web"}),
    Example("b", "x", {"kind": "new", "to": {}, "items": []}, {"source": "web"}),
    Example("c", "x", {"kind": "old", "items": [2]}, {"source": "fax", "kind": "meta"}),
    Example("d", "x", {"kind": None, "to": {"city": "Lima"}}, {"by": {"who": 1}}),
]


def values(path, examples=EXAMPLES):
    found = read_values(examples, np.arange(len(examples)), path)
    return [found.names[number] for number in found.numbers]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kind", ['"new"', '"new"', '"old"', "absent"]),
        ("kind?", ["present", "present", "present", "absent"]),
        ("to", ["present", "empty", "absent", "present"]),
        ("to.city", ['"Lima"', "absent", "absent", '"Lima"']),
        ("items", ["present", "empty", "present", "absent"]),
        ("source", ['"web"', '"web"', '"fax"', "absent"]),
        ("by.who", ["absent", "absent", "absent", "1"]),
    ],
)
def test_a_path_leads_to_the_output_or_else_to_another_column(path, expected):
    assert values(path) == expected


def test_text_outputs_are_balanced_as_a_whole():
    labels = [Example(str(i), "x", label) for i, label in enumerate(("yes", "no", "yes"))]
    assert values("output", labels) == ['"yes"', '"no"', '"yes"']


def test_values_that_every_score_takes_for_one_are_one():
    rows = [Example(str(i), "x", {"n": n}) for i, n in enumerate((5, 5.0, 7))]
    assert values("n", rows) == ["5", "5", "7"]


def test_values_are_counted_over_the_rows_that_are_used():
    found = read_values(EXAMPLES, np.array([0, 2]), "kind")
    assert (found.names, found.counts.tolist()) == (('"new"', '"old"'), [1, 1])


def test_a_field_that_no_row_has_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"No training row has the field knid") as caught:
        values("knid")
    assert caught.value.fix == "data.balance=<one of kind, to, to.city, items, source>"


@pytest.mark.parametrize(("path", "reason"), [("n", "another value"), ("m", "the same value")])
def test_a_field_that_balances_nothing_is_refused(path, reason):
    examples = [Example(str(i), "x", {"n": i, "m": 1}) for i in range(3)]
    with pytest.raises(ConfigError, match=reason):
        values(path, examples)
