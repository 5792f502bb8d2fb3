"""The check by itself: what changes the answer is seen, what does not is let through."""

import pytest

from exp.config.schema import OutputFormat
from exp.data.augmentation.grounding import ground, preserves

ONE = {"producto": "tornillo", "cantidad": 20, "precio": 12.5, "entrega": "lunes"}
ONE_TEXT = "Necesito 20 cajas de tornillos a 12,50 pesos, para el lunes. Mi tel. es 555 123 444."
TWO = {"lineas": [{"producto": "clavo", "cantidad": 3}, {"producto": "martillo", "cantidad": 8}]}
TWO_TEXT = "Mande 3 clavos y ocho martillos, no más"


@pytest.fixture
def passes(passage):
    def check(original, variant, output, **options):
        first = passage(original, output, **options)
        second = first.rewritten(variant)
        return preserves(ground(first), ground(second), first.target.ordered)

    return check


@pytest.mark.parametrize(
    "variant",
    [
        ONE_TEXT,
        "necesito veinte cajas de TORNILLOS a 12.5 pesos, para el lunes. Mi tel. es 555 123 444.",
        "Para el lunes, a 12,5 pesos,  20 cajas de tornillos. Mi tel. es 555 123 444",
    ],
)
def test_other_wordings_of_the_same_order_pass(passes, variant):
    assert passes(ONE_TEXT, variant, ONE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("20 cajas", "200 cajas"),
        ("20 cajas", "2 cajas"),
        ("20 cajas", "treinta cajas"),
        ("20 cajas", "cajas"),
        ("20 cajas", "20 20 cajas"),
        ("12,50", "12.500"),
        ("12,50", "1.250"),
        ("12,50", "1250"),
        ("tornillos", "tuercas"),
        ("tornillos", "tonrillos"),
        ("tornillos", ""),
        ("lunes", "martes"),
        ("lunes", "lnues"),
        ("Necesito", "No necesito"),
        ("para el", "no para el"),
        ("cajas", "bolsas"),
        ("pesos", "euros"),
        ("555 123", "555 124"),
    ],
)
def test_a_corrupted_variant_is_caught(passes, old, new):
    assert old in ONE_TEXT
    assert not passes(ONE_TEXT, ONE_TEXT.replace(old, new), ONE)


@pytest.mark.parametrize(
    "variant",
    [
        "Mande 8 clavos y tres martillos, no más",  # the numbers change places
        "Mande 3 martillos y ocho clavos, no más",  # the products do
        "Mande ocho martillos y 3 clavos, no más",  # the lines do
        "Mande 3 clavos y ocho martillos, más",  # a negation is lost
    ],
)
def test_what_belongs_together_stays_together_where_the_answer_has_a_list(passes, variant):
    assert passes(TWO_TEXT, TWO_TEXT, TWO)
    assert not passes(TWO_TEXT, variant, TWO)


def test_a_value_that_was_not_in_the_original_is_not_asked_for(passes):
    assert passes("mande clavos a $ 5", "MANDE CLAVOS a $ 5", {"moneda": "pesos", "precio": 5})


@pytest.mark.parametrize(
    ("original", "variant", "output"),
    [
        ("media docena de huevos", "media decena de huevos", {"cantidad": 6}),
        ("media docena de huevos", "docena de huevos", {"cantidad": 0.5}),
        ("siete euros con noventa", "siete euros con nueve", {"precio": 7.9}),
        ("dos kilos y medio", "dos kilos", {"cantidad": 2.5}),
    ],
)
def test_numbers_that_several_words_state_are_guarded(passes, original, variant, output):
    assert passes(original, original.upper(), output)
    assert not passes(original, variant, output)


def test_a_text_answer_guards_the_words_that_it_takes_over(passes):
    options = {"output_format": OutputFormat.text, "language": "en"}
    original, output = "Add two numbers x1 and y2", "define x1, y2"
    assert passes(original, "ADD two numbers x1 and y2!", output, **options)
    assert not passes(original, "Add two numbers x2 and y2", output, **options)
    assert not passes(original, "Add two numbers y2 and x1", output, **options)
