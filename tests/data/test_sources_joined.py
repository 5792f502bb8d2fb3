import json

import numpy as np
import pytest

from exp.config.schema import FieldsConfig
from exp.data.sources import load_rows
from exp.data.sources.joined import join
from exp.errors import DataError, UserErrors


@pytest.fixture
def load(tmp_path):
    def load(name, ids):
        path = tmp_path / name
        rows = [{"id": id_, "input": f"{name} {id_}", "output": {}} for id_ in ids]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_rows(str(path), FieldsConfig())

    return load


def test_files_stand_one_behind_the_other(load):
    one, other = load("one.jsonl", "ab"), load("other.jsonl", "cde")
    joined = join([one, other])
    assert list(joined) == [*one, *other]
    assert joined.sources.tolist() == [0, 0, 1, 1, 1]
    assert joined.name == f"{one.name}, {other.name}"
    assert joined.place(3) == other.place(1)
    assert joined[-1].id == "e"


def test_a_part_keeps_its_files(load):
    joined = join([load("one.jsonl", "ab"), load("other.jsonl", "cde")])
    part = joined.select(np.array([4, 0, 2]))
    assert [example.id for example in part] == ["e", "a", "c"]
    assert part.sources.tolist() == [1, 0, 1]
    assert [example.id for example in joined[1:3]] == ["b", "c"]


def test_the_content_key_follows_files_order_and_selection(load):
    one, other = load("one.jsonl", "ab"), load("other.jsonl", "cde")
    keys = {
        one.content_key,
        join([one, other]).content_key,
        join([other, one]).content_key,
        join([one, other])[1:].content_key,
        join([one, other])[:2].content_key,
    }
    assert len(keys) == 5
    assert join([one, other]).content_key == join([one, other]).content_key


def test_one_file_stays_itself(load):
    one = load("one.jsonl", "ab")
    assert join([one]) is one


def test_an_id_that_two_files_have_names_both_places(load):
    one, other = load("one.jsonl", "ab"), load("other.jsonl", "cbd")
    with pytest.raises(DataError) as caught:
        join([one, other])
    assert caught.value.what == f'The id "b" of {one.name}, line 2 is there again.'
    assert caught.value.where == f"{other.name}, line 2"


def test_all_ids_that_are_there_again_are_named(load):
    with pytest.raises(UserErrors) as caught:
        join([load("one.jsonl", "ab"), load("other.jsonl", "ba")])
    assert [error.where.rsplit(", ")[1] for error in caught.value.errors] == ["line 1", "line 2"]


def test_the_faults_of_all_files_are_shown_together(load):
    parts = [
        load(name, ids) for name, ids in (("1.jsonl", "ab"), ("2.jsonl", "a"), ("3.jsonl", "b"))
    ]
    with pytest.raises(UserErrors) as caught:
        join(parts)
    assert [error.where for error in caught.value.errors] == [part.place(0) for part in parts[1:]]
