"""Made-up names: what the answer takes from the text changes in both alike, and nothing else."""

import re

import pytest

from exp.config.schema import OutputFormat
from exp.data.augmentation.canon import Canon, learn_canon
from exp.data.augmentation.chain import STRATEGIES
from exp.data.augmentation.draw import random_of
from exp.data.augmentation.grounding import ground
from exp.data.augmentation.location import inflected
from exp.data.augmentation.renaming import rename
from exp.data.augmentation.words import fold, split_words
from exp.data.field_values import string_fields
from exp.records import Example

PRODUCT = ("lineas", "[]", "producto")
FREE = frozenset({PRODUCT})
FOLDS = Canon(folds_case=True, folds_accents=True)


@pytest.fixture
def renamed(passage):
    def build(text, output, free=FREE, seed=0, canon=FOLDS):
        original = passage(text, output, canon=canon)
        example = Example("a", text, output)
        return rename(original, ground(original), example, free, random_of(seed, "rename"))

    return build


def order(*products, **others):
    return {"lineas": [{"producto": product} for product in products], **others}


def test_a_name_changes_in_text_and_answer_alike(renamed):
    found = renamed("quiero dos cajas de TENAZAS; las tenazas, rojas", order("tenaza"))
    assert found is not None
    (name,) = [line["producto"] for line in found.output["lineas"]]
    assert name != "tenaza"
    assert re.fullmatch(f"quiero dos cajas de {name.upper()}S; las {name}s, rojas", found.input)


@pytest.mark.parametrize("seed", range(20))
def test_what_the_answer_mends_it_still_mends(renamed, seed):
    found = renamed("tres sillones y un lapiz", order("sillón", "lápiz"), seed=seed)
    first, second = (line["producto"] for line in found.output["lineas"])
    plural, single = split_words(found.input)[1].text, split_words(found.input)[-1].text
    assert plural == fold(first) + "es" or plural[:-2] == fold(first)
    assert single == fold(second)
    # An accent that the text leaves out is not a letter that both have.
    assert [c for c in first if not c.isascii()] == ["ó"]
    assert [c for c in second if not c.isascii()] == ["á"]


@pytest.mark.parametrize("seed", range(20))
def test_the_end_of_a_word_stays_for_its_singular_depends_on_it(renamed, seed):
    found = renamed("dos tomates y tres claveles", order("tomate", "clavel"), seed=seed)
    first, second = (line["producto"] for line in found.output["lineas"])
    assert first.endswith("te")
    assert second.endswith("el")
    assert found.input == f"dos {first}s y tres {second}es"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("dos cajas de clavos", order(moneda="pesos")),
        ("dos cajas", order("clavo")),
        ("dos AB-12", order("AB-12")),
        ("dos de té", order("té")),
        ("pesos en pesos", order("pesos", moneda="pesos")),
    ],
)
def test_where_nothing_can_be_renamed_there_is_nothing(renamed, text, output):
    assert renamed(text, output) is None


def test_a_name_within_a_name_is_left_to_the_longer_or_the_first(renamed):
    found = renamed("tubos de pegamento y pegamento", order("tubo de pegamento", "pegamento"))
    if found is not None:
        names = [line["producto"] for line in found.output["lineas"]]
        assert names[0].split()[2] in found.input
        assert found.input.endswith(names[1])


@pytest.mark.thorough
def test_every_order_stays_one_whose_answer_can_be_read(passage, orders):
    rows = orders("train")
    canon = learn_canon(rows, OutputFormat.json)
    num_renamed = 0
    for row in rows[:600]:
        original = passage(row.input, row.output, canon=canon)
        found = rename(original, ground(original), row, FREE, random_of(1, row.id))
        if found is None:
            continue
        num_renamed += 1
        assert found.id == row.id
        pairs = zip(row.output["lineas"], found.output["lineas"], strict=True)
        for before, after in pairs:
            assert {**before, "producto": ""} == {**after, "producto": ""}
            assert len(before["producto"]) == len(after["producto"])
        rest = [{**each.output, "lineas": None} for each in (row, found)]
        assert rest[0] == rest[1]
        new = [line["producto"] for line in found.output["lineas"]]
        old = [line["producto"] for line in row.output["lineas"]]
        words = {word for name in new for part in split_words(name) for word in [part.folded]}
        for a, b in zip(split_words(row.input), split_words(found.input), strict=True):
            # A word either is as it was, or an inflection of a word of a new name.
            assert a.text == b.text or any(inflected(word, b.folded) for word in words)
            assert len(a.text) == len(b.text)
            assert (a.text.isupper(), a.text.istitle()) == (b.text.isupper(), b.text.istitle())
        assert new != old
    assert num_renamed > 450


def test_the_same_numbers_give_the_same_names(renamed):
    arguments = ("dos cajas de tornillos", order("tornillo"))
    assert renamed(*arguments, seed=3) == renamed(*arguments, seed=3)
    names = {renamed(*arguments, seed=seed).input for seed in range(20)}
    assert len(names) > 15


def test_variants_under_other_names_have_their_own_answer(augmenter):
    row = Example("a", "necesito 12 cajas de tornillos, gracias", order("tornillo"))
    of = augmenter(canon=FOLDS, renaming=1.0, free_fields=string_fields(row.output))
    for variant in of.variants(row, 0, 3):
        assert variant.strategies[0] == "renaming"
        (line,) = variant.output["lineas"]
        assert line["producto"] != "tornillo"
        assert any(inflected(line["producto"], w.folded) for w in split_words(variant.text))


def test_without_renaming_variants_are_what_they_were(augmenter):
    row = Example("a", "necesito 12 cajas de tornillos, gracias", order("tornillo"))
    plain = augmenter(canon=FOLDS).variants(row, 0, 3)
    assert augmenter(canon=FOLDS, free_fields=FREE).variants(row, 0, 3) == plain
    assert all(variant.output is None for variant in plain)
    assert list(STRATEGIES) == [name for name in STRATEGIES if name != "renaming"]
