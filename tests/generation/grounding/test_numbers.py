"""Numbers of an answer are numbers that the input states."""

import json
from decimal import Decimal

import pytest

from exp.data.augmentation.lexicon import load_number_words
from exp.data.augmentation.number_words import NumberWords
from exp.generation.grounding import numbers
from exp.generation.grounding.numbers import ENOUGH_VALUES, NumberRules, learn_numbers
from exp.generation.grounding.surroundings import StatedNumber, stated_numbers
from exp.records import Example

QUANTITY, PRICE = ("lineas", "[]", "cantidad"), ("lineas", "[]", "precio_unitario")
SPANISH = load_number_words("es", None)


@pytest.fixture(scope="module")
def learned(orders):
    return learn_numbers(orders("train"), SPANISH)


def counted(output, text="take {}"):
    """As many rows as it takes to learn from, each with its number in the text."""
    return [Example(str(i), text.format(i), output(i)) for i in range(ENOUGH_VALUES + 10)]


def test_the_orders_numbers_come_out_of_their_texts(learned):
    fields, left_free = learned
    assert set(fields) == {QUANTITY, PRICE}
    assert not left_free


def test_numbers_of_unseen_rows_are_among_those_that_may_be_written(learned, orders):
    fields, _ = learned
    wanted = missed = 0
    for row in orders("validation"):
        stated = stated_numbers(row.input, SPANISH)
        for line in row.output["lineas"]:
            for path in (QUANTITY, PRICE):
                if path[-1] in line:
                    wanted += 1
                    missed += line[path[-1]] not in fields[path].all_values(stated)
    assert wanted > 500
    assert missed < 0.01 * wanted


def test_what_stands_around_numbers_leaves_few_of_them_and_hardly_a_right_one(learned, orders):
    fields, _ = learned
    left = stated_in_all = wanted = barred = 0
    for row in orders("validation"):
        stated = stated_numbers(row.input, SPANISH)
        rules = fields[PRICE]
        left += len(rules.values(stated))
        stated_in_all += len(rules.all_values(stated))
        for line in row.output["lineas"]:
            if line.get("precio_unitario") in rules.all_values(stated):
                wanted += 1
                barred += line["precio_unitario"] not in rules.values(stated)
    assert left < 0.4 * stated_in_all
    assert barred < 0.03 * wanted


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        ("quiero 30 kilos de arroz", []),
        ("quiero 30 kilos de arroz a 12 pesos el kilo", [12]),
        ("quiero arroz a 12 pesos el kilo, mi cel es (32) 4532-5459", [12]),
        ("quiero arroz a catorce soles con cincuenta el kilo", [14.5]),
        ("quiero arroz XYZ 12 QRS", [12]),  # nothing is known of what stands there
    ],
)
def test_a_price_is_told_by_what_stands_around_it(learned, text, prices):
    fields, _ = learned
    found = fields[PRICE].values(stated_numbers(text, SPANISH))
    assert [value for value in found if value not in fields[PRICE].always] == prices


def sized(word, i):
    """A row whose number behind `word` is its size; that behind "room" is not."""
    text = f"{word} {100 + i} please, in room {500 + i} today"
    return Example(f"{word}{i}", text, {"size": 100 + i})


def test_numbers_are_barred_by_what_hardly_ever_stands_around_a_fields():
    rules = learn_numbers([sized("take", i) for i in range(60)], NumberWords())[0][("size",)]
    stated = stated_numbers("take 7 please, in room 8 today, or 9 more", NumberWords())
    assert rules.values(stated) == [7, 9]
    assert rules.all_values(stated) == [7, 8, 9]


def test_what_stands_around_a_fields_numbers_too_bars_nothing():
    rows = [sized("take", i) if i % 9 else sized("room", i) for i in range(60)]
    rules = learn_numbers(rows, NumberWords())[0][("size",)]
    assert rules.values(stated_numbers("take 7 or room 8", NumberWords())) == [7, 8]


def test_what_is_wrong_of_half_of_the_rows_bars_nothing(monkeypatch):
    monkeypatch.setattr(numbers, "_barring", lambda rows: frozenset({"take #"}))
    rules = learn_numbers([sized("take", i) for i in range(60)], NumberWords())[0][("size",)]
    assert rules.barring == frozenset()
    monkeypatch.setattr(numbers, "_barring", lambda rows: frozenset({"room #"}))
    rules = learn_numbers([sized("take", i) for i in range(60)], NumberWords())[0][("size",)]
    assert rules.barring == {"room #"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("doce cajas a 946,25", [12, 946.25]),
        ("novecientos cuarenta y seis con veinticinco", [25, 946, 946.25]),
        ("1.250 kilos", [1.25, 1250]),
        ("0,125 kg", []),  # more decimals than any answer has
        ("llame al 98765432109876543", []),  # more digits than a JSON number keeps
        ("nada", []),
    ],
)
def test_what_a_text_states_is_what_a_field_may_be(text, values):
    assert NumberRules(decimals=2).values(stated_numbers(text, SPANISH)) == values


def test_whole_numbers_are_written_as_such():
    stated = [StatedNumber(Decimal(value), frozenset()) for value in ("3.00", "2.50")]
    found = NumberRules(decimals=2).values(stated)
    assert json.dumps(found) == "[2.5, 3]"


def test_values_that_training_texts_did_not_state_may_always_be_written():
    examples = [*counted(lambda i: {"size": i}), Example("pair", "take a pair", {"size": 2.5})]
    fields, _ = learn_numbers(examples, NumberWords())
    assert fields[("size",)].values(stated_numbers("take 7", NumberWords())) == [2.5, 7]


@pytest.mark.parametrize(("finest", "decimals"), [(1, 3), (0.125, 3), (0.00625, 5)])
def test_a_number_may_be_as_fine_as_those_of_training_or_three_decimals(finest, decimals):
    examples = [
        *counted(lambda i: {"size": i}),
        Example("fine", f"take {finest}", {"size": finest}),
    ]
    fields, _ = learn_numbers(examples, NumberWords())
    assert fields[("size",)].decimals == decimals


def test_a_language_without_a_lexicon_has_digits():
    assert {each.value for each in stated_numbers("seven of 12", NumberWords())} == {12}


def test_a_field_whose_numbers_are_not_in_the_input_is_left_free():
    fields, left_free = learn_numbers(counted(lambda i: {"length": 1000 + i}), NumberWords())
    assert not fields
    assert left_free == {("length",): 1.0}


def test_a_few_numbers_that_inputs_do_not_have_are_no_news():
    assert learn_numbers(counted(lambda i: {"stars": -(i % 5)}), NumberWords()) == ({}, {})


def test_too_few_values_tell_nothing():
    examples = counted(lambda i: {"size": i})[: ENOUGH_VALUES - 1]
    assert learn_numbers(examples, NumberWords()) == ({}, {})


def test_yes_and_no_are_no_numbers():
    assert learn_numbers(counted(lambda i: {"paid": i > 3}, "1 and 0"), NumberWords()) == ({}, {})
