"""What each strategy does, and what none of them does."""

from collections import Counter
from random import Random

import pytest

from exp.config.schema import OutputFormat, StrategiesConfig
from exp.data.augmentation.back_translation import BACK_TRANSLATION
from exp.data.augmentation.canon import Canon, learn_canon
from exp.data.augmentation.chain import STRATEGIES
from exp.data.augmentation.draw import draw_places, draw_weighted
from exp.data.augmentation.words import split_words, strip_accents
from exp.records import Example

FOLDS = Canon(folds_case=True, folds_accents=True)


@pytest.fixture
def outcomes(passage):
    """All texts that a strategy makes of a text."""

    def run(strategy, text, output=None, draws=60, strength=0.5, **options):
        start = passage(text, output, **options)
        return {STRATEGIES[strategy](start, Random(seed), strength) for seed in range(draws)}

    return run


def test_every_strategy_has_a_weight_and_every_weight_a_strategy():
    assert {BACK_TRANSLATION, *STRATEGIES} == set(StrategiesConfig.__dataclass_fields__)


def test_synonyms_replace_phrases_and_keep_capitals(outcomes):
    made = outcomes("synonyms", "Necesito comprar clavos", strength=0.1)
    assert made == {
        "Requiero comprar clavos",
        "Preciso comprar clavos",
        "Necesito adquirir clavos",
    }
    assert outcomes("synonyms", "NECESITO x") == {"PRECISO x", "REQUIERO x"}


def test_synonyms_leave_words_that_the_answer_takes_over(outcomes):
    text = "Quiero comprar o vender"
    assert all("comprar" in made for made in outcomes("synonyms", text, {"tipo": "comprar"}))
    assert any("adquirir" in made for made in outcomes("synonyms", text, {"tipo": "vender"}))


@pytest.mark.parametrize(
    ("text", "output", "made"),
    [
        ("20 cajas", {"n": 20}, {"veinte cajas"}),
        ("veinte cajas", {"n": 20}, {"20 cajas"}),
        ("doscientas cajas", {"n": 200}, {"200 cajas"}),
        ("200 cajas", {"n": 200}, {"doscientas cajas"}),
        ("a 12,50 pesos", {"n": 12.5}, {"a 12,5 pesos", "a 12.5 pesos", "a 12.50 pesos"}),
        ("$20", {"n": 20}, {"$20"}),
        ("MXN 20", {"n": 20}, {"MXN 20"}),
    ],
)
def test_numbers_of_the_answer_take_other_forms(outcomes, text, output, made):
    assert outcomes("number_format", text, output) == made


def test_a_large_number_takes_every_notation_of_the_language(outcomes):
    made = outcomes("number_format", "a 1.250,50 pesos", {"n": 1250.5}, draws=200)
    marks = ("1250,50", "1250.50", "1 250,5", "1 250,50", "1,250.50", "1.250,5")
    assert {f"a {form} pesos" for form in marks} <= made


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("20 cajas", {"n": 30}),  # not what the answer takes
        ("20 cajas", {"n": "20"}),  # a text, taken over as it is written
        ("modelo P-20", {"n": 20}),
        ("a 1.250 el kilo", {"n": 1.25}),  # read against the language's habit
        ("producto mil 20 cajas", {"n": 20}),  # "mil veinte" would be 1020
        ("media docena", {"n": 0.5}),
        ("una caja", {"n": 1}),
    ],
)
def test_other_numbers_stay_as_they_are(outcomes, text, output):
    assert outcomes("number_format", text, output) == {text}


def test_clauses_change_places_where_each_says_what_it_is(outcomes):
    text = "Necesito comprar 100 unidades de producto A, precio 50 pesos"
    output = {"producto": "A", "cantidad": 100, "precio": 50}
    assert "Precio 50 pesos, necesito comprar 100 unidades de producto A" in outcomes(
        "word_order", text, output
    )


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("láminas, 12, 40", {"p": "lámina", "n": 12, "m": 40}),  # only the order tells them apart
        ("mando 20 clavos, mejor mando 30", {"p": "clavo", "n": 30}),  # a correction
        ("manda 20 clavos, y cobra 30 pesos", {"p": "clavo", "n": 20}),  # hangs on the one before
        ("manda 3 clavos, cobra 4 palas", [{"p": "clavo"}, {"p": "pala"}]),  # a list
        ("av. norte 3", {}),
        ("una sola frase", {}),
    ],
)
def test_clauses_stay_where_their_order_may_matter(outcomes, text, output):
    assert outcomes("word_order", text, output) == {text}


def test_a_sentence_that_carries_nothing_may_go_anywhere(outcomes):
    text = "Buenas tardes.\nManda 3 clavos.\nManda 4 palas."
    output = {"lineas": [{"p": "clavo", "n": 3}, {"p": "pala", "n": 4}]}
    assert outcomes("word_order", text, output) == {
        "Manda 3 clavos.\nBuenas tardes.\nManda 4 palas.",
        "Manda 3 clavos.\nManda 4 palas.\nBuenas tardes.",
    }


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("¿Me mandas clavos?", "Me mandas clavos?"),
        ("- clavos\n- palas", "• clavos\n• palas"),
        ("* clavos\n* palas", "- clavos\n- palas"),
        ("Manda clavos.", "Manda clavos"),
        ("Manda clavos", "Manda clavos!"),
        ("Buenas, manda clavos", "Buenas manda clavos"),
    ],
)
def test_punctuation_varies(outcomes, text, among):
    assert among in outcomes("punctuation", text)


@pytest.mark.parametrize("text", ["20, 30, 40, 5 doc.", "3; 4 x.", "a 1.250,50, 3 kg."])
def test_marks_beside_numbers_and_abbreviations_stay(outcomes, text):
    assert outcomes("punctuation", text) == {text}


def test_white_space_inside_numbers_and_values_stays(outcomes):
    text = "quiero 1 250 kg de cable de red, gracias"
    for made in outcomes("whitespace", text, {"p": "cable de red", "n": 1250}, draws=100):
        assert "1 250 kg" in made
        assert "cable de red" in made
        assert (
            made.split() == text.split()
            or made.replace(",", " , ").split() == text.replace(",", " , ").split()
        )


def test_letter_case_leaves_values_that_the_task_copies(outcomes):
    text = "Manda el Martillo Azul a casa, Modelo X9 o D"
    for made in outcomes("letter_case", text, {"p": "Martillo Azul"}):
        assert {"Martillo", "Azul", "X9", "D"} <= {word.text for word in split_words(made)}
        assert made.lower() == text.lower()


def test_letter_case_changes_values_that_the_task_folds_but_no_acronym(outcomes):
    made = outcomes(
        "letter_case", "Manda Clavos y cable HDMI", {"a": "clavo", "b": "cable HDMI"}, canon=FOLDS
    )
    assert "manda clavos y cable HDMI" in made


def test_accents_go_but_the_letter_enie_stays(outcomes):
    assert outcomes("accents", "mañana más camión") == {
        "mañana mas camion",
        "mañana mas camión",
        "mañana más camion",
    }


def test_accents_stay_on_values_that_the_task_copies(outcomes):
    text, output = "José pide más", {"n": "José"}
    assert outcomes("accents", text, output) == {"José pide mas"}
    assert "Jose pide mas" in outcomes("accents", text, output, canon=FOLDS)


def test_typos_hit_free_words_alone_and_make_no_other_word(outcomes):
    text = "Necesito treinta cajas de martillos para el miércoles, mil disculpas"
    output = {"p": "martillo", "n": 30, "d": "miércoles"}
    made = outcomes("typos", text, output, draws=300, strength=1.0) - {text}
    assert made
    kept = {"treinta", "cajas", "martillos", "miércoles", "mil", "de", "para", "el"}
    for variant in made:
        words = [word.text for word in split_words(variant)]
        assert kept <= set(words)
        assert len(words) == len(split_words(text))


def test_a_word_that_comes_twice_may_be_a_reference_and_is_not_misspelt(outcomes):
    text = "dame tuercas y palas; anule las tuercas"
    assert outcomes("typos", text, {"p": "pala"}, draws=100) == {text}


def test_a_misspelt_word_of_a_value_is_not_misspelt_further(outcomes):
    text = "mande ensaimdaas urgentemente"
    made = outcomes("typos", text, {"p": "ensaimada"}, draws=100)
    assert len(made) > 1
    assert all("ensaimdaas" in variant for variant in made)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "text", ["", " ", "\n", "?!", "...", "7", "\U0001f64f", "a\u0301", "\x00 x"]
)
def test_no_strategy_stumbles_over_odd_texts(outcomes, strategy, text):
    assert outcomes(strategy, text, {"n": 7, "s": "x"}, draws=5)


def test_a_task_that_writes_values_in_small_letters_is_recognised():
    rows = [
        Example(str(i), f"{'CLAVOS Sofá' if i % 2 else 'clavos'} {i}", {"p": "clavos"})
        for i in range(20)
    ]
    assert learn_canon(rows, OutputFormat.json) == Canon(folds_case=True, folds_accents=False)


def test_a_task_that_leaves_accents_out_of_inputs_is_recognised():
    rows = [Example(str(i), ("sofá", "sofa")[i % 2], {"p": "sofá"}) for i in range(20)]
    assert learn_canon(rows, OutputFormat.json) == Canon(folds_case=False, folds_accents=True)


def test_a_task_that_copies_is_recognised():
    rows = [Example(str(i), "José Pérez", {"p": "José Pérez"}) for i in range(20)]
    assert learn_canon(rows, OutputFormat.json) == Canon()


def test_weights_say_how_often_a_strategy_is_drawn():
    weights = {"often": 3.0, "seldom": 1.0, "never": 0.0}
    drawn = Counter(draw_weighted(weights, 1, Random(seed))[0] for seed in range(2000))
    assert set(drawn) == {"often", "seldom"}
    assert drawn["often"] / 2000 == pytest.approx(0.75, abs=0.05)


def test_at_least_one_place_is_drawn_where_there_is_one():
    assert draw_places([], Random(0), 0.5) == []
    assert len(draw_places([1, 2], Random(0), 0.01)) == 1
    assert draw_places([3, 1, 2], Random(0), 1.0) == [3, 1, 2]


def test_stripping_accents_leaves_signs_alone():
    assert strip_accents("€ 5 ñandú", "ñ") == "€ 5 ñandu"
