"""What stands around a number."""

from decimal import Decimal

import pytest

from exp.data.augmentation.lexicon import load_number_words
from exp.generation.grounding.surroundings import stated_numbers

SPANISH = load_number_words("es", None)


def around(text, value):
    found = [each for each in stated_numbers(text, SPANISH) if each.value == Decimal(str(value))]
    return set().union(*(each.surroundings for each in found))


def test_words_and_signs_on_both_sides_in_several_widths():
    assert around("Por favor, 30 Kilos de té", 30) == {
        ", #",
        "# kilos",
        ", # kilos",
        "favor , #",
        "# kilos de",
        "favor , # kilos",
        ", # kilos de",
        "digits2.0",
        ", digits2.0",
        "digits2.0 kilos",
    }


@pytest.mark.parametrize(
    ("text", "value", "seen"),
    [
        ("12", 12, {"START #", "# END", "START # END"}),
        ("a 12\npan", 12, {"# \n"}),
        ("pan, 50kg.", 50, {"# kg", "# kg ."}),
        ("pan 7 8", 8, {"# #"}),
        ("a $ 1.250,50 el kilo", "1250.50", {"$ #", "# el kilo", "digits4.1"}),
        ("son 1.250 kilos", "1.25", {"reading1.2", "# kilos"}),
        ("dos kilos y medio de pan", "2.5", {"sum1.1", "# de", "START #"}),
        ("a dos pesos con diez el kilo", "2.1", {"decimal1.1", "# el", "a #"}),
        ("a dos pesos con diez el kilo", 2, {"fragment1.0", "# pesos con"}),
        ("tel. 925177479", 925177479, {"digits7.0", "tel . #"}),
        ("a treinta y cinco pesos", 35, {"words2.0 pesos", "a # pesos"}),
    ],
)
def test_places_and_forms(text, value, seen):
    assert seen <= around(text, value)


def test_a_number_that_is_stated_twice_is_two():
    twice = [each for each in stated_numbers("30 kilos a 30 pesos", SPANISH) if each.value == 30]
    assert len(twice) == 2


def test_a_text_without_words_states_nothing():
    assert stated_numbers("", SPANISH) == stated_numbers("¿?!", SPANISH) == frozenset()
