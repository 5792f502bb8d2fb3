from dataclasses import replace

import pytest

from exp.data.audit.settings import AuditSettings
from exp.records import Example


def found(report):
    return {(f.split, f.check): [row.id for row in f.rows] for f in report.findings}


def row(id_, text, product="nails"):
    return Example(id_, text, {"product": product})


def test_each_copy_is_named_with_what_it_copies(audited):
    splits = {
        "train": [row("a", "nails, two boxes"), row("b", "nails,  two\nboxes"), row("c", "nails")],
        "validation": [row("d", "nails, two boxes")],
        "test": [row("e", "nails"), row("f", "nails, two boxes"), row("g", "nails")],
    }
    report = audited(splits)
    assert found(report) == {
        ("train", "duplicate"): ["b"],
        ("test", "duplicate"): ["g"],
        ("validation", "leak"): ["d"],
        ("test", "leak"): ["e", "f", "g"],
    }
    details = {(f.check, r.id): r.detail for f in report.findings for r in f.rows}
    assert details["duplicate", "b"] == "as train.jsonl, line 1"
    assert details["leak", "g"] == "as train.jsonl, line 3"


def test_the_first_of_several_answers_is_what_the_others_conflict_with(audited):
    splits = {
        "train": [row("a", "wire or nails"), row("b", "wire or nails", "wire")],
        "test": [row("c", "wire or nails", "wire")],
    }
    report = audited(splits)
    conflicts = [(r.id, r.detail) for f in report.findings if f.check == "conflict" for r in f.rows]
    first = 'train.jsonl, line 1 has {"product":"nails"}'
    assert conflicts == [("b", first), ("c", first)]


@pytest.mark.parametrize("other", [{"product": "nails", "quantity": 2.0}, None])
def test_outputs_that_mean_the_same_do_not_conflict(other, audited):
    one = Example("a", "two nails", {"quantity": 2, "product": " nails"})
    other = one.output if other is None else other
    report = audited({"train": [one, Example("b", "two nails", other)]}, schema=None)
    assert found(report) == {("train", "duplicate"): ["b"]}


def test_ids_of_one_split_and_of_several_are_told_apart(audited):
    texts = ("nails for Monday", "a box of pins, nails", "all nails that there are", "no nails")
    ids = ("a", "a", "a", "b")
    rows = [row(id_, text) for id_, text in zip(ids, texts, strict=True)]
    report = audited({"train": rows[:2], "test": rows[2:]})
    assert found(report) == {("train", "repeated_id"): ["a"], ("test", "shared_id"): ["a"]}


def test_empty_ids_are_not_also_repeated(audited):
    rows = [row("", "nails for Monday"), row("", "a box of pins, nails")]
    assert found(audited({"train": rows})) == {("train", "empty_id"): ["", ""]}


def test_what_is_found_does_not_depend_on_the_other_rows(corpus, audited):
    copy = replace(corpus["train"][0], id="copy")
    for position in (1, 20, 40):
        splits = corpus | {"train": [*corpus["train"]]}
        splits["train"].insert(position, copy)
        report = audited(splits, settings=AuditSettings())
        assert found(report) == {("train", "duplicate"): ["copy"]}
