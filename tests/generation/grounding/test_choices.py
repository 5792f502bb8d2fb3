"""Choices of an answer stand only where the input speaks of them."""

import random

import pytest

from exp.data.field_values import string_values
from exp.generation.grounding import choices
from exp.generation.grounding.choices import ENOUGH_ROWS, ChoiceRules, learn_choices, words_of
from exp.records import Example

UNIT, CURRENCY, DAY = ("lineas", "[]", "unidad"), ("moneda",), ("entrega",)


@pytest.fixture(scope="module")
def learned(orders):
    return learn_choices(orders("train"))


def rows_of(write, kinds, number=120):
    """Rows of filler words, each with a choice and what a text says of it."""
    rng = random.Random(0)
    filler = ["we", "need", "the", "goods", "soon", "please", "send", "to", "our", "shop", "in"]
    rows = []
    for i in range(number):
        kind = kinds[i % len(kinds)]
        words = [*rng.choices(filler, k=8), *write(kind, i)]
        rng.shuffle(words)
        output = {"id": str(i)} if kind is None else {"id": str(i), "kind": kind}
        rows.append(Example(str(i), " ".join(words), output))
    return rows


def test_the_orders_units_currencies_and_days_are_told_by_words(learned):
    assert set(learned) == {UNIT, CURRENCY, DAY}
    assert set(learned[CURRENCY].signs["pesos"]) == {"pesos", "$", "mxn", "ars"}
    assert learned[DAY].signs["viernes"] == ("viernes",)
    assert {"kg", "kilos", "kgs"} <= set(learned[UNIT].signs["kg"])


def test_what_unseen_rows_have_may_be_written(learned, orders):
    wanted = missed = 0
    for row in orders("validation"):
        words = words_of(row.input)
        for path, value in string_values(row.output):
            if path in learned:
                wanted += 1
                missed += not learned[path].admits(value, words)
    assert wanted > 400
    assert missed < 0.01 * wanted


def test_a_row_is_left_few_of_all_choices(learned, orders):
    rows = orders("validation")
    admitted = sum(
        rules.admits(choice, words_of(row.input))
        for row in rows
        for rules in learned.values()
        for choice in rules.signs
    )
    assert sum(len(rules.signs) for rules in learned.values()) == 26
    assert admitted < 3 * len(rows)


@pytest.mark.parametrize(
    ("text", "choice", "wanted"),
    [
        ("doce cajas a 30", "pesos", False),
        ("doce cajas a $30", "pesos", True),
        ("doce cajas a 30 PESOS", "pesos", True),
        ("doce cajas a 30 pessos", "pesos", True),  # misspelt
        ("doce cajas a 30 pasos", "pesos", True),  # one letter off: better one too many
        ("doce cajas a 30 dolares", "dólares", True),
        ("doce cajas a 30", "francos", True),  # nothing is known of it
    ],
)
def test_a_choice_needs_a_word_that_speaks_for_it(learned, text, choice, wanted):
    assert learned[CURRENCY].admits(choice, words_of(text)) == wanted


def test_words_of_a_text_are_without_case_accents_and_digits():
    assert words_of("12kg de Limón, US$3 (€ 4_5)") == {"kg", "de", "limon", "us", "$", "€"}
    assert words_of("") == frozenset()


def test_a_choice_that_stands_in_the_text_itself_may_be_written():
    rules = ChoiceRules({"coffee shop": ("espresso",)})
    assert rules.admits("coffee shop", words_of("a Coffee-Shop in town"))
    assert not rules.admits("coffee shop", words_of("a shop in town"))


def test_what_is_meant_and_not_said_is_left_free():
    """As labels of a feeling are: no few words tell them."""
    rows = rows_of(lambda kind, i: (), ["glad", "sad", None])
    assert learn_choices(rows) == {}


def test_what_all_rows_have_is_left_free():
    rows = rows_of(lambda kind, i: ("anywhere",), ["here"])
    assert learn_choices(rows) == {}


def test_half_of_the_rows_must_tell_the_other_half(monkeypatch):
    """Three rows in a row have a word of their own each, which tells nothing of rows to come."""
    rng = random.Random(1)
    own = ["".join(rng.choices("bcdfghjklmnpqrstvwxyz", k=9)) for _ in range(24)]
    rows = rows_of(lambda kind, i: (own[i // 3],), ["glad"] * 3 + ["sad"] * 3, number=72)
    assert learn_choices(rows) == {}
    monkeypatch.setattr(choices, "_told_by_half", lambda texts, made: {"glad", "sad"})
    assert set(learn_choices(rows)[("kind",)].signs) == {"glad", "sad"}


def test_a_field_that_few_rows_have_is_left_free():
    rows = rows_of(lambda kind, i: (f"{kind}ly",) if kind else (), ["big", None], number=60)
    assert ("kind",) not in learn_choices(rows)
    rows = rows_of(lambda kind, i: (f"{kind}ly",) if kind else (), ["big", None], number=120)
    assert learn_choices(rows)[("kind",)].signs == {"big": ("bigly",)}


def test_a_rare_choice_may_always_be_written():
    kinds = ["big", "small"] * 8
    rows = rows_of(lambda kind, i: (f"{kind}ly",), [*kinds, "odd"], number=len(kinds) * 15)
    rules = learn_choices(rows)[("kind",)]
    assert ENOUGH_ROWS < sum(row.output["kind"] == "odd" for row in rows) < 2 * ENOUGH_ROWS
    assert set(rules.signs) == {"big", "small"}
    assert rules.admits("odd", words_of("nothing of the kind"))
    assert not rules.admits("big", words_of("nothing of the kind"))


def test_orders_need_the_day_and_the_currency_that_they_speak_of(learned, orders):
    assert learned[UNIT].against is None  # lists have as many entries as they have
    for path in (CURRENCY, DAY):
        needed = wrong = had = 0
        for row in orders("validation"):
            has = path[0] in row.output
            needs = learned[path].needs(words_of(row.input))
            needed += needs and has
            wrong += needs and not has
            had += has
        assert wrong <= 0.02 * had
        assert needed > 0.6 * had


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("para el lunes, doce cajas", True),
        ("PARA EL MIERCOLES", True),
        ("el lunes pasado me quedaron mal, doce cajas", False),  # no day of delivery
        ("el lunes pasado me quedarron mal", False),  # the same, misspelt
        ("para el lumes", False),  # a day, maybe
        ("doce cajas", False),
    ],
)
def test_a_day_is_needed_where_the_input_speaks_of_one_plainly(learned, text, wanted):
    assert learned[DAY].needs(words_of(text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("a 30 pesos", True), ("a $30", False), ("a 30 MXN", False)]
)
def test_a_choice_is_needed_where_it_is_named_itself(learned, text, wanted):
    """Other words that rows with it have may be those of other rows, too."""
    assert learned[CURRENCY].admits("pesos", words_of(text))
    assert learned[CURRENCY].needs(words_of(text)) == wanted


def test_a_choice_without_letters_is_never_needed():
    rules = ChoiceRules({"2015": ("recent",)}, against=())
    assert not rules.needs(words_of("the recent one of 2015"))


def test_a_field_that_named_choices_do_not_call_for_may_always_be_left_out():
    """Half of the rows that name a kind do not have it, and no other word tells which."""
    rows = rows_of(lambda kind, i: ("big",), ["big", None], number=160)
    rows += rows_of(lambda kind, i: (), [None], number=240)
    rules = learn_choices(rows)[("kind",)]
    assert rules.signs == {"big": ("big",)}
    assert rules.against is None
    assert not rules.needs(words_of("send big goods"))


def test_words_beside_which_a_name_says_nothing_are_found():
    kinds = ["big", "big", None]
    rows = rows_of(lambda kind, i: ("big",) if kind else ("big", "formerly"), kinds, number=150)
    rows += rows_of(lambda kind, i: (), [None], number=150)
    rules = learn_choices(rows)[("kind",)]
    assert rules.against == ("formerly",)
    assert rules.needs(words_of("send big goods"))
    assert not rules.needs(words_of("formerly big goods"))
