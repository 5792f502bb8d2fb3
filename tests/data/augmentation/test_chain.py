"""Variants of many generated orders, checked by a reader that is not the one that made them."""

import json
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words

from exp.config.schema import OutputFormat
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.chain import MAX_DRAWS, STRATEGIES
from exp.data.augmentation.grounding import ground, preserves
from exp.data.tasks.orders_es.generate import generate
from exp.records import Example

FOLDS = Canon(folds_case=True, folds_accents=True)
GOODS = (
    "hammer",
    "screw",
    "paint brush",
    "door handle",
    "cable HDMI",
    "wrench",
    "AB-12",
    "soap",
    "copper pipe",
    "lamp",
    "glue",
    "bucket",
)
DAYS = ("monday", "tuesday", "friday", "today")


def english_order(seed):
    """One order in loose English, with its answer."""
    rng = Random(seed)
    lines, said = [], []
    for good in rng.sample(GOODS, rng.randint(1, 3)):
        line = {"product": good, "quantity": rng.choice((2, 3, 12, 21, 40, 250, 1200, 3850))}
        spoken = number(rng, line["quantity"]) + " " + rng.choice(("boxes of ", "units of ", ""))
        spoken += good + ("s" if not good[-1].isdigit() and rng.random() < 0.5 else "")
        if rng.random() < 0.6:
            line["price"] = rng.choice((5, 12.5, 99.95, 1250.5, 700))
            spoken += f" at {number(rng, line['price'])} dollars each"
        lines.append(line)
        said.append(spoken)
    output = {"lines": lines}
    opening = rng.choice(("Hello, I need ", "We want to order ", "Please send ", "Order:\n- "))
    text = opening + ("\n- " if "\n" in opening else rng.choice((", ", " and "))).join(said)
    if rng.random() < 0.5:
        output["day"] = rng.choice(DAYS)
        text += rng.choice((". I need it on ", ".\nDelivery: ", ", for ")) + output["day"]
    if rng.random() < 0.3:
        text += ". My number is 555 0199 12"
    return Example(
        f"en-{seed}", text + rng.choice((".", "", ". Thanks a lot.", "\nbest regards")), output
    )


def number(rng, value):
    if value == int(value) and rng.random() < 0.4:
        return num2words(value, lang="en").replace(",", "")
    return rng.choice((f"{value:,}", f"{value}")) if value != int(value) else f"{value:,}"


def spanish_orders(count, seed):
    rows = generate({"train": count}, seed)["train"]
    return [Example(row.id, row.input, row.output) for row in rows]


# ---- a reader that knows nothing of the code under test ------------------------------------------


def plain(text):
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w.,/$€½-]+", " ", bare.lower()).split())


@cache
def spellings(value, language):
    """Every way in which a number may be written, as patterns, long ones first."""
    whole, _, cents = f"{Decimal(str(value)).normalize():f}".partition(".")
    grouped = [whole]
    if len(whole) > 3:
        grouped += [f"{int(whole):,}".replace(",", mark) for mark in (" ", ".", ",")]
    tails = [f"[.,]{cents}0*"] if cents else ["[.,]00?", ""]
    forms = [re.escape(form) + tail for form in grouped for tail in tails]
    if not cents and int(whole) < 100_000:
        spelt = plain(num2words(int(whole), lang=language).replace(",", "")).replace("-", "[ -]")
        if language == "es":
            spelt = re.sub(r"uno?\b", "un[oa]?", spelt)
            spelt = re.sub(r"(cient|quinient)os", r"\1[oa]s", spelt)
            forms += [f"{whole[:-3]} mil"] if whole.endswith("000") else []
        forms.append(spelt)
    return tuple(sorted(forms, key=len, reverse=True))


def pattern(values, language):
    forms = sorted((f for v in values for f in spellings(v, language)), key=len, reverse=True)
    return re.compile(r"(?<![\w.,])(?:" + "|".join(forms) + r")(?![\w]|[.,]\d)")


@cache
def number_words(language):
    spelt = (num2words(n, lang=language) for n in (*range(2, 100), *range(100, 1001, 100)))
    words = {word for text in spelt for word in re.split(r"\W+", plain(text))}
    return words - {"y", "and", "one"}


def leaves(value):
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def read(text, output, language):
    """What a text says: how often each string, which numbers of the answer, and which others."""
    text = plain(text)
    values = set(leaves(output))
    strings = {v for v in values if isinstance(v, str)}
    numbers = values - strings
    counts = {
        value: len(re.findall(rf"(?<!\w){re.escape(plain(value))}(?:s|es)?(?!\w)", text))
        for value in strings
    }
    # "cincuenta" inside "novecientos cincuenta" states no 50: whole numbers are looked at.
    found = {match[0] for match in pattern(numbers, language).finditer(text)} if numbers else set()
    stated = {v for v in numbers if any(pattern([v], language).fullmatch(form) for form in found)}
    rest = pattern(numbers, language).sub(" ", text) if numbers else text
    others = [word.strip(".,/-") for word in rest.split() if any(c.isdigit() for c in word)]
    others += [word for word in re.split(r"\W+", rest) if word in number_words(language)]
    return counts, stated, sorted(others)


# ---- the properties ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    variants: int
    rejected: int


def check(example, augmenter, language, epoch=0, count=3):
    """Everything that has to hold for the variants of an example."""
    original = augmenter.open(example)
    made = augmenter.variants(example, epoch, count)
    assert made == augmenter.variants(example, epoch, count)
    assert len(made) == count
    texts = [variant.text for variant in made if variant.text is not None]
    assert len({example.input, *texts}) == 1 + len(texts)
    before = read(example.input, example.output, language)
    for variant in made:
        if variant.text is None:
            continue
        assert variant.strategies
        after = read(variant.text, example.output, language)
        assert after == before, (example.input, variant.text)
        again = original.rewritten(variant.text)
        assert preserves(ground(original), ground(again), original.target.ordered)
    return Counts(len(texts), sum(variant.num_rejected for variant in made))


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**9), epoch=st.integers(0, 5))
@pytest.mark.thorough
def test_the_answer_to_an_english_order_stays_readable(augmenter, seed, epoch):
    check(english_order(seed), augmenter("en", seed=seed % 7, canon=FOLDS), "en", epoch)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**9), epoch=st.integers(0, 5))
@pytest.mark.thorough
def test_the_answer_to_a_spanish_order_stays_readable(augmenter, seed, epoch):
    for example in spanish_orders(5, seed):
        check(example, augmenter(seed=seed % 7, canon=FOLDS), "es", epoch)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["es", "en"])
def test_ten_thousand_orders_stay_readable(augmenter, language):
    orders = spanish_orders(10_000, 1) if language == "es" else map(english_order, range(10_000))
    of = augmenter(language, canon=FOLDS)
    counts = [check(example, of, language) for example in orders]
    made = sum(count.variants for count in counts)
    print(f"{language}: {made} variants, {sum(c.rejected for c in counts)} draws rejected")
    assert made > 0.99 * 3 * len(counts)


def test_a_variant_depends_on_seed_epoch_id_and_number_alone(augmenter):
    example = english_order(3)
    first = augmenter("en").variants(example, 0, 3)
    assert augmenter("en").variants(example, 0, 2) == first[:2]
    others = [
        augmenter("en", seed=1).variants(example, 0, 3),
        augmenter("en").variants(example, 1, 3),
        augmenter("en").variants(Example("other", example.input, example.output), 0, 3),
    ]
    assert all(other != first for other in others)


@pytest.mark.thorough
def test_variants_are_the_same_in_processes_with_other_hash_seeds(under_hash_seeds):
    code = (
        "import json\n"
        "from exp.config.schema import OutputFormat\n"
        "from exp.data.augmentation.canon import Canon\n"
        "from exp.data.augmentation.chain import STRATEGIES, Augmenter\n"
        "from exp.data.augmentation.lexicon import load_lexicon\n"
        "from exp.data.tasks.orders_es.generate import generate\n"
        "from exp.records import Example\n"
        "of = Augmenter(dict.fromkeys(STRATEGIES, 1.0), 4, 0.5, load_lexicon('es', None),\n"
        "               OutputFormat.json, Canon(True, True), 0)\n"
        "rows = generate({'train': 40}, 0)['train']\n"
        "print(json.dumps([[v.text for v in of.variants(Example(r.id, r.input, r.output), 0, 3)]\n"
        "                  for r in rows]))\n"
    )
    outputs = under_hash_seeds(code)
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])) == 40


def test_a_strategy_that_corrupts_the_answer_is_rejected_and_counted(augmenter):
    def corrupt(passage, rng, strength):
        return passage.text.replace("20", rng.choice(("30", "veinte")))

    of = augmenter(weights={"corrupt": 1.0}, chain={"corrupt": corrupt})
    made = [of.variants(Example(str(i), "manda 20 palas", {"n": 20}), 0, 1)[0] for i in range(40)]
    assert {variant.text for variant in made} == {"manda veinte palas"}
    assert sum(variant.num_rejected for variant in made) > 10


def test_a_strategy_that_only_corrupts_gives_no_variant(augmenter):
    of = augmenter(weights={"corrupt": 1.0}, chain={"corrupt": lambda *_: "manda 30 palas"})
    (variant,) = of.variants(Example("a", "manda 20 palas", {"n": 20}), 0, 1)
    assert (variant.text, variant.num_rejected) == (None, MAX_DRAWS)


def test_a_text_that_admits_few_variants_gives_no_duplicates(augmenter):
    of = augmenter(weights={"punctuation": 1.0})
    made = of.variants(Example("a", "palas", {"p": "palas"}), 0, 6)
    texts = [variant.text for variant in made]
    assert set(texts) == {"palas.", "palas!", None}
    assert texts.count("palas.") == texts.count("palas!") == 1


def test_strategies_of_weight_zero_are_never_drawn(augmenter):
    weights = dict.fromkeys(STRATEGIES, 0.0) | {"typos": 1.0, "letter_case": 1.0}
    of = augmenter(weights=weights, canon=FOLDS)
    used = {
        name
        for example in spanish_orders(30, 0)
        for variant in of.variants(example, 0, 2)
        for name in variant.strategies
    }
    assert used == {"typos", "letter_case"}


def test_a_text_answer_keeps_the_words_that_it_takes_over(augmenter):
    of = augmenter("en", output_format=OutputFormat.text, max_strategies=6)
    example = Example("f", "Please add the numbers alpha1 and beta2, thank you", "alpha1 + beta2")
    for epoch in range(30):
        for variant in of.variants(example, epoch, 2):
            assert variant.text is not None
            assert variant.text.index("alpha1") < variant.text.index("beta2")
