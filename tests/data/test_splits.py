import json
import unicodedata

import numpy as np
import pytest

from exp.config.schema import FieldsConfig
from exp.data.sources import load_rows
from exp.data.splits import divide, split_point
from exp.errors import DataError


def load(folder, texts, name="rows.jsonl"):
    lines = [json.dumps({"id": str(i), "input": text, "output": {}}) for i, text in texts]
    (folder / name).write_text("\n".join(lines))
    return load_rows(str(folder / name), FieldsConfig())


def inputs(splits):
    return {name: {example.input for example in rows} for name, rows in splits.items()}


TEXTS = [(i, f"pedido {i % 300}") for i in range(600)]


def test_no_row_is_lost_and_no_input_is_in_two_splits(tmp_path):
    splits = divide(load(tmp_path, TEXTS), 0.2, 0.2)
    ids = sorted(int(example.id) for rows in splits.values() for example in rows)
    assert ids == list(range(600))
    train, validation, test = (inputs(splits)[name] for name in ("train", "validation", "test"))
    assert len(train) + len(validation) + len(test) == len(train | validation | test) == 300


def test_each_split_gets_about_its_share_of_inputs(tmp_path):
    splits = divide(load(tmp_path, [(i, f"pedido {i}") for i in range(3000)]), 0.2, 0.1)
    assert len(splits["validation"]) == pytest.approx(600, abs=70)
    assert len(splits["test"]) == pytest.approx(300, abs=50)


def test_where_an_input_goes_does_not_depend_on_other_rows_or_their_order(tmp_path):
    whole = inputs(divide(load(tmp_path, TEXTS), 0.2, 0.2))
    part = inputs(divide(load(tmp_path, TEXTS[150:50:-1], "part.jsonl"), 0.2, 0.2))
    assert all(part[name] and part[name] <= whole[name] for name in whole)


def test_the_test_split_stays_when_the_validation_fraction_changes(tmp_path):
    rows = load(tmp_path, TEXTS)
    assert inputs(divide(rows, 0.1, 0.2))["test"] == inputs(divide(rows, 0.4, 0.2))["test"]
    assert (
        inputs(divide(rows, 0.2, 0.1))["validation"] == inputs(divide(rows, 0.2, 0.4))["validation"]
    )


def test_a_larger_fraction_keeps_what_a_smaller_one_took(tmp_path):
    rows = load(tmp_path, TEXTS)
    assert inputs(divide(rows, 0, 0.1))["test"] < inputs(divide(rows, 0, 0.3))["test"]


def test_unicode_forms_and_white_space_do_not_tell_inputs_apart():
    text = "Quiero  2 años\n de leña "
    assert split_point(text) == split_point(unicodedata.normalize("NFD", "Quiero 2 años de leña"))
    assert split_point(text) != split_point("quiero 2 años de leña")


def test_the_place_of_a_text_never_changes():
    # Written down once; another value would move examples between the splits of existing runs.
    assert split_point("Necesito comprar 100 unidades") == 4721316899507183359


def test_a_fraction_of_zero_makes_no_split(tmp_path):
    rows = load(tmp_path, TEXTS)
    assert divide(rows, 0, 0) == {"train": rows}
    assert set(divide(rows, 0.1, 0)) == {"train", "validation"}


def test_splits_keep_the_order_of_the_file(tmp_path):
    ids = [int(example.id) for example in divide(load(tmp_path, TEXTS), 0.2, 0.2)["train"]]
    assert (np.diff(ids) > 0).all()


def test_an_empty_split_is_an_error_that_says_why(tmp_path):
    rows = load(tmp_path, [(0, "uno"), (1, " uno"), (2, "uno")])
    with pytest.raises(DataError) as caught:
        divide(rows, 0.001, 0)
    assert caught.value.what == (
        "The validation split comes out empty: the training rows hold 1 different input, "
        "task.validation_fraction=0.001."
    )
    assert "task.validation=<file>" in caught.value.fix


def test_an_empty_training_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="The train split comes out empty"):
        divide(load(tmp_path, [(0, "uno")]), 0.999999, 0)


@pytest.mark.parametrize("shares", [(1e-25, 0.0), (0.0, 1e-25)])
def test_a_share_of_next_to_nothing_is_an_empty_split(tmp_path, shares):
    with pytest.raises(DataError, match="split comes out empty"):
        divide(load(tmp_path, TEXTS), *shares)
