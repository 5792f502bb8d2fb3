from exp.generation.grounding.inflection import Inflections, Taken, learn_inflections


def taken(*pairs: str, bare: bool = False) -> list[Taken]:
    return [Taken(*pair.split(">"), bare_text=bare) for pair in pairs]


SPANISH = taken(
    *("tornillos>tornillo", "martillos>martillo", "cepillos>cepillo", "TENAZAS>tenaza"),
    *("camiones>camión", "botones>botón", "cajones>cajón"),
    *("lápices>lápiz", "peces>pez", "tapices>tapiz"),
    *("flores>flor", "motores>motor", "tractores>tractor"),
    *("arroz>arroz", "harina>harina", "leche>leche"),
    *("led>LED", "usb>USB"),
)
BARE = taken("algodon>algodón", "jamon>jamón", "cajon>cajón", bare=True)
KNOWN = ["tornillo", "aguacate", "LED", "té", "sal"]
KNOWN += ["algodón", "jamón", "cajón", "botón", "camión", "melón", "tapón", "ratón"]


def learned() -> Inflections:
    return learn_inflections([*SPANISH, *BARE], KNOWN)


def test_endings_change_as_those_of_other_words_did():
    forms = learned().forms("ovillos")
    assert "ovillo" in forms
    assert "ovillos" not in forms
    assert "albornoz" in learned().forms("albornoces")


def test_a_word_of_capitals_becomes_lower_case():
    assert "martillo" in learned().forms("MARTILLOS")


def test_an_inflected_word_gets_the_accent_that_such_words_have():
    forms = learned().forms("limones")
    assert "limón" in forms
    assert "limon" not in forms


def test_accents_are_mended_where_the_whole_text_has_none():
    assert "salmón" in learned().forms("salmon", bare_text=True)
    assert "salmón" not in learned().forms("salmon", bare_text=False)


def test_words_of_answers_have_their_accents_where_the_text_has_none():
    rules = learn_inflections([*SPANISH, *BARE], [*KNOWN, "pompon"])
    assert "salmon" in rules.forms("salmon", bare_text=True)  # of this one nothing is known
    assert "jamon" not in rules.forms("jamon", bare_text=True)
    assert "jamon" not in rules.forms("jamones", bare_text=True)
    assert "jamón" in rules.forms("jamones", bare_text=True)


def test_a_word_with_accents_may_lose_them():
    assert "joven" in learned().forms("jóvenes")


def test_a_word_that_no_rule_fits_stays():
    plural = learn_inflections(taken("unos>uno", "otros>otro", "pocos>poco"), [])
    assert plural.forms("mar") == ["mar"]


def test_codes_stay_as_they_are_and_may_be_in_capitals():
    assert set(learned().forms("x31")) == {"x31", "X31"}


def test_without_capitals_in_answers_there_are_none():
    plain = learn_inflections(taken("Uno>uno", "Dos>dos", "Tres>tres"), ["uno", "dos", "tres"])
    assert "X31" not in plain.forms("x31")


def test_a_misspelt_word_may_stand_for_a_known_one():
    assert "aguacate" in learned().forms("augacate")
    assert "té" in learned().forms("TE")
    assert "sal" not in learned().forms("sol")  # too short to be recognised by its letters


def test_answers_that_copy_keep_case_and_accents():
    copied = learn_inflections(taken("Uno>Uno", "Dos>Dos", "Tres>Tres"), ["Uno", "Dos", "Tres"])
    assert copied.forms("Cuatro", bare_text=True) == ["Cuatro"]


def test_one_slip_among_many_words_makes_no_rule():
    words = [f"{a}{b}illos>{a}{b}illo" for a in "bcdfgl" for b in "aeiou"]
    rules = learn_inflections(taken(*words, "grillos>gra"), []).rules
    assert rules["los"] == [("s", "")]


def test_what_was_learned_does_not_depend_on_the_order_of_rows():
    pairs = [*SPANISH, *BARE]
    assert learn_inflections(reversed(pairs), reversed(KNOWN)) == learn_inflections(pairs, KNOWN)
