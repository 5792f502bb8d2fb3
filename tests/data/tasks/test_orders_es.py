"""The shipped splits against the schema, the generator, and an independent reader of Spanish."""

import difflib
import json
import re
import tomllib
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from num2words import num2words

from exp.data.tasks.orders_es import lexicon
from exp.data.tasks.orders_es.generate import NUM_ROWS, Row, generate
from exp.data.tasks.orders_es.lexicon import inflect
from exp.data.tasks.orders_es.message import join
from exp.data.tasks.orders_es.numerals import NOTATIONS, Notation, digits, words
from exp.data.tasks.orders_es.orders import Line, Order, canonical

FOLDER = files("exp.data.tasks.orders_es")
SPLITS = ("train", "validation", "test")


@cache
def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FOLDER.joinpath("schema.json").read_text("utf-8"))
    return loaded


@cache
def shipped(split: str) -> list[dict[str, Any]]:
    text = FOLDER.joinpath(f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


@cache
def generated() -> dict[str, list[Row]]:
    return generate()


def plain(text: str) -> str:
    stripped = unicodedata.normalize("NFD", text.lower())
    return "".join(c for c in stripped if not unicodedata.combining(c))


# ---- an independent reader: all numbers that an attentive reader could take from a text ----------


@cache
def number_words() -> dict[str, int]:
    """Spelt numbers up to 999 in all agreements, from num2words and plain rules."""
    spelt: dict[str, int] = {}
    for value in range(1, 1000):
        base = plain(num2words(value, lang="es"))
        feminine = base.replace("cientos", "cientas").replace("quinientos", "quinientas")
        for form in (base, feminine, re.sub("uno$", "un", base), re.sub("uno$", "una", feminine)):
            spelt[form] = value
    return spelt


def spelt_numbers(tokens: list[str]) -> list[tuple[int, int, int]]:
    """Find the longest spelt numbers as (start, end, value)."""
    found, i = [], 0
    while i < len(tokens):
        for size in range(min(9, len(tokens) - i), 0, -1):
            value = _spelt(tokens[i : i + size])
            if value is not None:
                found.append((i, i + size, value))
                i += size
                break
        else:
            i += 1
    return found


def _spelt(tokens: list[str]) -> int | None:
    if "mil" not in tokens:
        return number_words().get(" ".join(tokens))
    at = tokens.index("mil")
    head, tail = " ".join(tokens[:at]), " ".join(tokens[at + 1 :])
    thousands = (
        1 if not head else number_words().get(head) or (int(head) if head.isdigit() else None)
    )
    rest = 0 if not tail else number_words().get(tail)
    return None if thousands is None or rest is None else thousands * 1000 + rest


def readable_numbers(text: str) -> set[Decimal]:
    """Collect every number that the text can be read to say."""
    text = plain(text)
    numbers = set()
    for match in re.finditer(
        r"\d{1,3}(?:[., ]\d{3})+(?!\d)(?:[.,]\d{1,2}(?!\d))?|\d+(?:[.,]\d{1,2}(?!\d))?", text
    ):
        whole, _, cents = _split_decimals(match[0])
        numbers.add(Decimal(f"{whole}.{cents or 0}"))
    if "1/2" in text:
        numbers.add(Decimal("0.5"))
    tokens = re.findall(r"\d+|[a-z]+|[^\w ]", text)  # Punctuation and line ends part numbers.
    spelt = spelt_numbers(tokens)
    starts = {start: (end, value) for start, end, value in spelt}
    for _, end, value in spelt:
        numbers.add(Decimal(value))
        following = tokens[end : end + 3]
        if following[1:] in (["y", "media"], ["y", "medio"]):
            numbers.add(value + Decimal("0.5"))
        for gap in (end, end + 1):  # "doce con cincuenta", "doce pesos con cincuenta"
            if tokens[gap : gap + 1] == ["con"] and gap + 1 in starts:
                numbers.add(value + Decimal(starts[gap + 1][1]) / 100)
    joined = " ".join(tokens)
    idioms = {
        r"\bmedi[ao]\b": "0.5",
        r"\bun cuarto\b": "0.25",
        r"\btres cuartos\b": "0.75",
        r"\b(docena|kilo|litro|metro) y medi[ao]\b": "1.5",
        r"\bun par\b": "2",
        r"\bdecena\b": "10",
        r"\bveintena\b": "20",
        r"\bmedio centenar\b": "50",
        r"\bcentenar\b": "100",
    }
    return numbers | {Decimal(v) for pattern, v in idioms.items() if re.search(pattern, joined)}


def _split_decimals(text: str) -> tuple[str, str, str]:
    """Take a last group of one or two digits for decimals, groups of three for thousands."""
    decimal = re.search(r"[.,](\d{1,2})$", text)
    whole = text[: decimal.start()] if decimal else text
    return re.sub(r"[., ]", "", whole), ".", decimal[1] if decimal else ""


def resembles(name: str, text: str) -> bool:
    """Whether some stretch of the text is the name, plural endings and misspellings aside."""
    wanted = plain(name)
    haystack = plain(text)
    if wanted in haystack:
        return True
    sizes = range(max(1, len(wanted) - 1), len(wanted) + 6)
    stretches = (haystack[i : i + n] for n in sizes for i in range(len(haystack) - n + 1))
    return any(
        # Two letters that changed places may split a word so that the matcher misses most of it.
        sorted(stretch) == sorted(wanted)
        or (
            stretch[0] == wanted[0]
            and difflib.SequenceMatcher(None, wanted, stretch).ratio() >= 0.65
        )
        for stretch in stretches
    )


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.thorough
def test_shipped_file_is_what_the_generator_writes(split: str) -> None:
    written = "".join(f"{row.to_json()}\n" for row in generated()[split])
    assert FOLDER.joinpath(f"{split}.jsonl").read_bytes() == written.encode("utf-8")


@pytest.mark.thorough
def test_generator_does_not_depend_on_the_hash_seed(
    under_hash_seeds: Callable[..., list[str]],
) -> None:
    code = (
        "import hashlib; from exp.data.tasks.orders_es.generate import generate;"
        "rows = generate({'train': 60, 'test': 60});"
        "text = ''.join(row.to_json() for split in rows.values() for row in split);"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    first, second = under_hash_seeds(code)
    assert first == second


def test_another_seed_gives_other_rows() -> None:
    few = {"train": 20}
    assert generate(few, seed=1)["train"] != generate(few, seed=2)["train"]


def test_splits_have_the_stated_sizes() -> None:
    assert {split: len(shipped(split)) for split in SPLITS} == NUM_ROWS


def test_ids_are_unique_over_all_splits() -> None:
    ids = [row["id"] for split in SPLITS for row in shipped(split)]
    assert len(set(ids)) == len(ids)


def test_no_input_occurs_twice_in_any_splits_however_it_is_cased_or_accented() -> None:
    per_split = [{plain(row["input"]) for row in shipped(split)} for split in SPLITS]
    assert not per_split[0] & per_split[1]
    assert not per_split[0] & per_split[2]
    assert not per_split[1] & per_split[2]
    inputs = [row["input"] for split in SPLITS for row in shipped(split)]
    assert len(set(inputs)) == len(inputs)


def test_no_input_gives_the_answer_away() -> None:
    assert not [r["id"] for s in SPLITS for r in shipped(s) if re.search(r'[{}"\[\]_]', r["input"])]


def test_instruction_names_every_key_and_every_value_of_the_enums() -> None:
    instruction = FOLDER.joinpath("instruction.txt").read_text("utf-8")
    line = schema()["$defs"]["linea"]["properties"]
    assert 80 <= len(instruction.split()) <= 170
    for word in [*schema()["properties"], *line, *line["unidad"]["enum"]]:
        assert word in instruction
    for word in schema()["properties"]["moneda"]["enum"]:
        assert word in instruction


# ---- outputs ------------------------------------------------------------------------------------


def test_brief_instruction_names_every_key_in_the_order_of_the_schema() -> None:
    instruction = FOLDER.joinpath("instruction_brief.txt").read_text("utf-8")
    assert len(instruction.splitlines()) == 1
    first, *others = schema()["properties"]
    keys = [first, *schema()["$defs"]["linea"]["properties"], *others]
    places = [re.search(rf"\b{key}\b", instruction) for key in keys]
    assert all(places)
    starts = [place.start() for place in places if place]
    assert starts == sorted(starts)


@pytest.mark.parametrize("split", SPLITS)
def test_outputs_follow_the_schema(split: str) -> None:
    validator = Draft202012Validator(schema())
    assert not [row["id"] for row in shipped(split) if not validator.is_valid(row["output"])]


def test_schema_is_a_valid_schema_and_refuses_unknown_keys() -> None:
    Draft202012Validator.check_schema(schema())
    order = {"lineas": [{"producto": "A", "precio": 3}]}
    assert not Draft202012Validator(schema()).is_valid(order)


@pytest.mark.parametrize("split", SPLITS)
def test_keys_stand_in_the_order_of_the_schema(split: str) -> None:
    top, line = list(schema()["properties"]), list(schema()["$defs"]["linea"]["properties"])
    for row in shipped(split):
        assert list(row["output"]) == [key for key in top if key in row["output"]]
        for entry in row["output"]["lineas"]:
            assert list(entry) == [key for key in line if key in entry]


def test_the_seed_sentence_has_the_flat_line_of_the_example() -> None:
    (product,) = [p for p in lexicon.products("train") if p.singular == "A"]
    unit = lexicon.units()["unidad"]
    order = Order((Line(product, unit, Decimal(100), Decimal(50)),), lexicon.currencies()[0], None)
    line = {"producto": "A", "cantidad": 100, "precio_unitario": 50}
    assert canonical(order) == {"lineas": [line], "moneda": "pesos"}


def test_schema_enums_are_those_of_the_lexicon() -> None:
    units = [name for name, unit in lexicon.units().items() if not unit.loose]
    assert schema()["$defs"]["linea"]["properties"]["unidad"]["enum"] == units
    currencies = [currency.name for currency in lexicon.currencies()]
    assert schema()["properties"]["moneda"]["enum"] == currencies
    assert schema()["properties"]["entrega"]["enum"] == list(lexicon.DAYS)


# ---- grounding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.thorough
def test_every_number_can_be_read_in_the_text(split: str) -> None:
    for row in shipped(split):
        numbers = readable_numbers(row["input"])
        for line in row["output"]["lineas"]:
            for key in ("cantidad", "precio_unitario"):
                if key in line:
                    assert Decimal(str(line[key])) in numbers, (row["input"], line)


@pytest.mark.parametrize("split", SPLITS)
def test_every_product_can_be_read_in_the_text(split: str) -> None:
    for row in shipped(split):
        for line in row["output"]["lineas"]:
            assert resembles(line["producto"], row["input"]), (row["input"], line)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.thorough
def test_every_unit_currency_and_day_can_be_read_in_the_text(split: str) -> None:
    for row in shipped(split):
        for line in row["output"]["lineas"]:
            if "unidad" in line:
                forms = lexicon.units()[line["unidad"]].forms
                assert any(resembles(f, row["input"]) for pair in forms for f in pair), row
        if "moneda" in row["output"]:
            (money,) = [c for c in lexicon.currencies() if c.name == row["output"]["moneda"]]
            signs = (*money.words, *(affix.strip() for affix in (*money.prefixes, *money.suffixes)))
            assert any(resembles(sign, row["input"]) for sign in signs), row
        if "entrega" in row["output"]:
            assert plain(row["output"]["entrega"]) in plain(row["input"]), row


def test_the_reader_does_not_find_numbers_that_are_not_there() -> None:
    text = "Necesito veintiún sacos a 1.250,50 pesos, y dos kilos y medio a doce con cincuenta"
    expected = {"21", "1250.50", "2", "2.5", "12", "12.50", "50", "0.5"}
    assert readable_numbers(text) == {Decimal(number) for number in expected}


# ---- generalisation -----------------------------------------------------------------------------


def test_no_product_of_one_split_occurs_in_the_outputs_of_another() -> None:
    named = {
        split: {line["producto"] for row in shipped(split) for line in row["output"]["lineas"]}
        for split in SPLITS
    }
    assert not named["train"] & named["test"]
    assert not named["train"] & named["validation"]
    assert not named["validation"] & named["test"]


def test_not_even_head_words_of_products_are_shared() -> None:
    heads = [{product.head for product in lexicon.products(split)} for split in SPLITS]
    assert sum(map(len, heads)) == len(set().union(*heads))


def test_train_and_test_share_no_template_but_the_empty_frame() -> None:
    used = {s: {t for row in generated()[s] for t in row.templates} for s in SPLITS}
    shared = {template.partition(": ")[2] for template in used["train"] & used["test"]}
    # Frames without a word of their own cannot be phrased otherwise.
    assert shared <= {"{qp}", "{prod}", "{list}", "{prod}: {q}"}
    assert len(used["test"]) > 100


def test_words_of_a_test_template_open_no_training_text() -> None:
    tables = tomllib.loads(FOLDER.joinpath("phrasing.toml").read_text("utf-8"))
    requests = [
        text for key in tables["test"]["request"] for text in tables["test"]["request"][key]
    ]
    openings = {plain(text.partition("{")[0]).strip() for text in requests} - {""}
    train = [plain(row["input"]) for row in shipped("train")]
    for opening in openings:
        assert not [text for text in train if text.startswith(opening)], opening


def test_validation_speaks_with_the_templates_of_train() -> None:
    used = {s: {t for row in generated()[s] for t in row.templates} for s in SPLITS}
    assert used["validation"] <= used["train"]


# ---- difficulty ---------------------------------------------------------------------------------

SHARES = {
    "lines_1": (0.35, 0.60),
    "lines_2": (0.18, 0.40),
    "lines_3": (0.08, 0.22),
    "lines_4": (0.05, 0.18),
    "correo": (0.12, 0.30),
    "whatsapp": (0.30, 0.50),
    "lista": (0.12, 0.28),
    "telefono": (0.12, 0.30),
    "number_words": (0.45, 0.80),
    "fraction_words": (0.08, 0.30),
    "collective": (0.01, 0.10),
    "decimals": (0.15, 0.40),
    "thousands_mark": (0.07, 0.30),
    "currency_word": (0.30, 0.60),
    "currency_code": (0.05, 0.25),
    "currency_prefix": (0.04, 0.20),
    "missing_price": (0.35, 0.65),
    "missing_quantity": (0.04, 0.15),
    "price_first": (0.05, 0.25),
    "product_first": (0.35, 0.75),
    "correction_inline": (0.08, 0.25),
    "correction_late": (0.15, 0.35),
    "correction_cancel": (0.02, 0.10),
    "delivery": (0.20, 0.40),
    "distractor": (0.30, 0.60),
    "greeting": (0.45, 0.75),
    "misspelt": (0.15, 0.35),
    "lower": (0.20, 0.50),
    "upper": (0.005, 0.08),
    "unaccented": (0.15, 0.45),
}
HARD = {
    "number_words", "fraction_words", "decimals", "thousands_mark", "correction_inline",
    "correction_late", "distractor", "misspelt", "lower", "upper", "unaccented", "price_first",
    "missing_quantity", "lines_3", "lines_4",
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("feature", SHARES)
@pytest.mark.thorough
def test_difficulty_is_present_in_its_stated_share(split: str, feature: str) -> None:
    rows = generated()[split]
    low, high = SHARES[feature]
    assert low <= sum(feature in row.features for row in rows) / len(rows) <= high


@pytest.mark.thorough
@pytest.mark.parametrize("split", SPLITS)
def test_most_rows_combine_three_difficulties(split: str) -> None:
    rows = generated()[split]
    assert sum(len(row.features & HARD) >= 3 for row in rows) / len(rows) >= 0.5


# ---- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "gender", "before_noun", "expected"),
    [
        (1, "m", True, "un"),
        (1, "f", True, "una"),
        (21, "m", True, "veintiún"),
        (21, "f", True, "veintiuna"),
        (21, "m", False, "veintiuno"),
        (31, "m", True, "treinta y un"),
        (200, "f", True, "doscientas"),
        (500, "f", True, "quinientas"),
        (1000, "m", True, "mil"),
        (1250, "m", True, "mil doscientos cincuenta"),
        (21000, "m", True, "veintiún mil"),
        (201, "f", False, "doscientas una"),
    ],
)
def test_number_words_agree_with_their_noun(
    value: int, gender: str, before_noun: bool, expected: str
) -> None:
    assert words(value, gender, before_noun) == expected


@given(st.integers(1, 99_999_999), st.sampled_from(NOTATIONS), st.sampled_from([None, 2]))
def test_digits_in_every_notation_read_back_as_the_number(
    cents: int, notation: Notation, num_decimals: int | None
) -> None:
    value = Decimal(cents) / 100
    assert value in readable_numbers(f"son {digits(value, notation, num_decimals)} en total")


@given(st.integers(1, 999_999), st.sampled_from("mf"), st.booleans())
def test_number_words_read_back_as_the_number(value: int, gender: str, before_noun: bool) -> None:
    assert Decimal(value) in readable_numbers(words(value, gender, before_noun))


def test_a_price_does_not_run_into_the_next_quantity() -> None:
    assert join(["un saco a cincuenta", "dos cajas"]) == "un saco a cincuenta, y dos cajas"
    assert join(["tres kilos", "media docena"]) == "tres kilos, y media docena"
    assert join(["un saco a 50", "medio kilo"]) == "un saco a 50, y medio kilo"
    assert join(["arroz, un saco", "dos cajas"]) == "arroz, un saco y dos cajas"
    assert join(["dos cajas", "impresoras"]) == "dos cajas e impresoras"


def test_both_numbers_are_read_from_one_entry() -> None:
    assert inflect("lápi[z|ces] azul(es)") == ("lápiz azul", "lápices azules")
