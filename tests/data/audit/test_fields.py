import pytest

from exp.data.audit import fields
from exp.data.audit.fields import fold, leaves
from exp.data.audit.settings import AuditSettings
from exp.records import Example


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Camión, GRANDE", "camion grande"),
        ("a-b_c  d", "a b c d"),
        ("  ", ""),
        ("№ 5", "no 5"),
    ],
)
def test_texts_are_folded_to_letters_and_digits(text, folded):
    assert fold(text) == folded


def test_leaves_are_named_by_their_way():
    value = {"a": [{"b": 1}, {"b": 2, "c": []}], "d": {}, "e": [[True]]}
    assert list(leaves(value)) == [
        *(("a[].b", 1), ("a[].b", 2), ("a[].c", []), ("d", {}), ("e[][]", True))
    ]


def test_presence_values_and_grounding_are_counted_per_field(audited):
    rows = [
        Example("1", "two boxes of Nails", {"lines": [{"what": "nails"}, {"what": "box"}]}),
        Example("2", "wire please", {"lines": [{"what": "WIRE"}], "urgent": True, "kind": "order"}),
        Example("3", "the usual thing", {"lines": []}),
    ]
    schema = {"properties": {"kind": {"enum": ["order", "offer"]}}}
    report = audited({"train": rows}, schema=schema)
    facts = {one.path: one for one in report.splits[0].fields}
    what = facts["lines[].what"]
    assert (what.num_rows, what.num_strings, what.num_grounded) == (2, 3, 3)
    assert sorted(what.values) == [("WIRE", 1), ("box", 1), ("nails", 1)]
    assert facts["urgent"].values == (("true", 1),)
    assert (facts["kind"].num_rows, facts["kind"].num_strings) == (1, 0)
    assert facts["lines"].num_rows == 1


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("two boxes of Nails", "nail", 1),
        ("two boxes of toenails", "nails", 0),
        ("Camión nº 5", "camion", 1),
        ("请送两盒钉子到北京", "北京", 1),
        ("请送两盒钉子到北京", "上海", 0),
    ],
)
def test_a_string_occurs_at_the_start_of_a_word_or_where_words_have_no_gaps(
    text, value, found, audited
):
    report = audited({"train": [Example("1", text, {"product": value})]})
    assert report.splits[0].fields[0].num_grounded == found


@pytest.mark.parametrize(("limit", "warned"), [(0.5, False), (0.51, True)])
def test_a_split_is_warned_about_below_the_limit_only(limit, warned, audited):
    rows = [
        Example("1", "nails for the house", {"product": "nails"}),
        Example("2", "what we always take", {"product": "wire"}),
    ]
    report = audited({"train": rows}, settings=AuditSettings(min_grounded=limit))
    assert [f.check for f in report.findings] == ["ungrounded"] * warned
    if warned:
        assert [row.id for row in report.findings[0].rows] == ["2"]
        assert "of all 2 strings of the split only 50%" in report.findings[0].what


def test_a_split_is_warned_about_where_each_row_says_a_little_of_its_input(audited):
    rows = [
        Example("1", "nails for the house", {"product": "nails", "colour": "red", "place": "Rome"}),
        Example("2", "wire for the shed", {"product": "wire", "colour": "blue", "place": "Oslo"}),
    ]
    report = audited({"train": rows}, schema=None)
    (finding,) = report.findings
    assert (finding.check, finding.count) == ("ungrounded", 2)
    assert finding.rows[0].detail == "1 of its 3 strings are in the input"
    assert "only 33%" in finding.what


def test_keys_that_are_made_up_row_by_row_are_counted_together(audited, monkeypatch):
    monkeypatch.setattr(fields, "MOST_FIELDS", 3)
    rows = [Example(str(n), f"row {n} of many {n * n}", {f"key{n}": n}) for n in range(9)]
    report = audited({"train": rows[:6], "test": rows[6:]}, schema=None)
    paths = [one.path for one in report.splits[0].fields]
    assert paths == ["key0", "key1", "key2", "(other fields)"]
    assert report.splits[0].fields[-1].num_rows == 3
    assert "unseen_field" not in {finding.check for finding in report.findings}
