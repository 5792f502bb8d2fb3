"""How one writer words quantities, prices and lines, with templates from phrasing.toml."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from exp.data.tasks.orders_es import lexicon
from exp.data.tasks.orders_es.lexicon import Currency, Product, Unit
from exp.data.tasks.orders_es.numerals import HALF, NOTATIONS, Notation, digits, words
from exp.data.tasks.orders_es.orders import Line, sample_price, sample_quantity

ROUND_COUNTS = {10: "una decena", 20: "una veintena", 50: "medio centenar", 100: "un centenar"}
RATES = ("{la}", "{cada}", "{por}")


SECTIONS = {"train": ("train", "train_only"), "validation": ("train",), "test": ("test",)}
"""Which sections of phrasing.toml each split speaks with."""


@cache
def templates(sections: tuple[str, ...], kind: str, key: str) -> tuple[str, ...]:
    """Give the templates of phrasing.toml under [section.kind] key, of all sections."""
    return tuple(text for section in sections for text in _tables()[section][kind][key])


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("phrasing.toml").read_text("utf-8"))


def names_of(split: str) -> str:
    """Say which names of lexicon.toml a split uses: validation has those of train."""
    return "test" if split == "test" else "train"


@dataclass
class Writer:
    """One person writing one message: habits that hold throughout, and a record of what was used.

    Attributes:
        split: Whose templates are used.
        register: correo, whatsapp, lista or telefono.
        spelling: Probability that a number is spelt out.
        money: Where the currency goes: ("word", ""), ("prefix", "$") or ("suffix", " EUR").
        code_noun: What comes before a product code: "producto", "artículo".
        templates: Templates used so far, as `kind.key: text`.
        features: Difficulties met so far.
    """

    rng: Random
    split: str
    register: str
    currency: Currency | None
    spelling: float
    notation: Notation
    money: tuple[str, str]
    code_noun: str
    templates: set[str] = field(default_factory=set)
    features: set[str] = field(default_factory=set)

    @classmethod
    def sample(cls, rng: Random, split: str, register: str, currency: Currency | None) -> "Writer":
        money = ("word", "")
        if currency and rng.random() < 0.55:
            place = rng.choice(("prefix", "suffix"))
            affixes = currency.prefixes if place == "prefix" else currency.suffixes
            money = (place, rng.choice(affixes))
        spelling = {"correo": 0.3, "whatsapp": 0.3, "lista": 0.1, "telefono": 0.75}[register]
        noun = rng.choice(lexicon.words_of("code_nouns", names_of(split)))
        return cls(rng, split, register, currency, spelling, rng.choice(NOTATIONS), money, noun)

    @property
    def names(self) -> str:
        """Whose people and streets are used: those of train or of test."""
        return names_of(self.split)

    def pick(self, kind: str, key: str, fits: Callable[[str], bool] = lambda _: True) -> str:
        """Choose a template that fits and note it."""
        chosen = self.rng.choice([t for t in templates(SECTIONS[self.split], kind, key) if fits(t)])
        self.templates.add(f"{kind}.{key}: {chosen}")
        return chosen

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    # ---- lines ----------------------------------------------------------------------------------

    def line(self, line: Line, style: str, show_currency: bool) -> str:
        """Word one line, as an `np` after a verb or an `item` of a list."""
        asked = ("quantity" if line.quantity else "", "price" if line.price else "")
        key = {("quantity", "price"): "both", ("", ""): "bare"}.get(asked, "".join(asked))
        if style == "item" and self.chance(0.25):
            style = "np"
        round_count = line.quantity in ROUND_COUNTS or line.quantity == 2
        # "Two dozen at 40" leaves open for what the 40 are, unless the template says it.
        vague = line.unit.name == "docena" or (line.quantity and line.quantity < 1) or round_count

        def fits(template: str) -> bool:
            if "{money}" in template and not self.currency:
                return False
            if "c/u" in template and (line.unit.measure or line.unit.name == "docena"):
                return False
            rated = any(rate in template for rate in RATES)
            return key != "both" or not vague or rated

        template = self.pick(style, key, fits)
        if template.startswith(("a {", "precio", "{money}", "con precio")):
            self.features.add("price_first")
        if key in ("price", "bare"):
            self.features.add("missing_quantity")
        if key in ("quantity", "bare"):
            self.features.add("missing_price")
        if template.startswith("{prod}"):
            self.features.add("product_first")
        slots = {"prod": self.product(line.product), **self.rate(line)}
        # Only what the template asks for is worded, so that the record holds what was used.
        flat = "(" in template
        if "{qp}" in template:
            slots["qp"] = self.repaired(self.counted(line), line, "quantity", flat=True)
        if "{q}" in template:
            slots["q"] = self.repaired(self.quantity(line), line, "quantity", flat)
        if line.price is not None:
            shown = bool(self.currency) and (show_currency or "{money}" in template)
            price = self.repaired(self.price(line.price, shown), line, "price", flat)
            slots |= {"price": price, "money": price}
        return template.format(**slots)

    def repaired(self, right: str, line: Line, what: str, flat: bool) -> str:
        """Now and then say a wrong number first and mend it in the same breath.

        Args:
            right: The phrase that counts.
            line: Whose quantity or price it is.
            what: "quantity" or "price".
            flat: Do without brackets, as there are some around it or a product is in the phrase.
        """
        if self.register == "lista" or not self.chance(0.07):
            return right
        self.features.add("correction_inline")
        other = self.other_number(line, what)
        wrong = self.quantity(line, other) if what == "quantity" else self.price(other, False)
        repair = self.pick("correction", "repair", lambda text: not flat or "(" not in text)
        return repair.format(wrong=wrong, right=right)

    def other_number(self, line: Line, what: str) -> Decimal:
        """Draw a number of like size that the line's quantity or price could have had."""
        if what == "quantity":
            value = line.quantity
            draws = [sample_quantity(self.rng, line.unit) for _ in range(40)]
        else:
            value = line.price
            currency = self.currency or lexicon.currencies()[0]
            draws = [sample_price(self.rng, line.product, currency) for _ in range(40)]
        assert value is not None
        near = [x for x in draws if x != value and value / 3 <= x <= value * 3]
        return near[0] if near else value * 2

    # ---- products and units ---------------------------------------------------------------------

    def product(self, product: Product) -> str:
        """Name the product as one names it without a quantity."""
        if product.kind == "code":
            return f"{self.code_noun} {product.singular}"
        return product.singular if product.kind == "mass" else product.plural

    def the(self, product: Product) -> str:
        """Name the product with its article."""
        plural = product.kind == "count"
        article = {("m", False): "el", ("f", False): "la", ("m", True): "los", ("f", True): "las"}
        return f"{article[product.gender, plural]} {self.product(product)}"

    def of_the(self, product: Product) -> str:
        return f"de {self.the(product)}".replace("de el ", "del ")

    def rate(self, line: Line) -> dict[str, str]:
        """Say what a price is for: "la caja", "cada caja", "por caja"."""
        unit = line.unit
        if unit.loose:
            every = "cada una" if line.product.gender == "f" else "cada uno"
            return {"la": self.rng.choice(("la unidad", every)), "cada": every, "por": "por unidad"}
        name = unit.forms[0][0]
        article = "el" if unit.gender == "m" else "la"
        return {"la": f"{article} {name}", "cada": f"cada {name}", "por": f"por {name}"}

    def unit_form(self, unit: Unit) -> tuple[str, str]:
        """Choose a form of the unit: mostly the full word, short ones in notes."""
        short = {"correo": 0.2, "whatsapp": 0.35, "lista": 0.55, "telefono": 0.0}[self.register]
        return (
            self.rng.choice(unit.forms[1:] or unit.forms) if self.chance(short) else unit.forms[0]
        )

    # ---- quantities -----------------------------------------------------------------------------

    def counted(self, line: Line) -> str:
        """Word quantity and product together: "20 cajas de clavos", "veintiún martillos"."""
        product = line.product
        if line.unit.loose and product.kind == "count" and self.chance(0.75):
            assert line.quantity is not None
            name = product.singular if line.quantity == 1 else product.plural
            count = self.count(line.quantity, product.gender, before_noun=True)
            return f"{count} {name}"
        link = "del" if product.kind == "code" and self.chance(0.4) else "de"
        return f"{self.quantity(line, must_name_unit=True)} {link} {self.product(product)}"

    def quantity(
        self, line: Line, value: Decimal | None = None, must_name_unit: bool = False
    ) -> str:
        """Word the line's quantity, or `value` in its place, with its unit."""
        value = value or line.quantity
        assert value is not None
        unit = line.unit
        if unit.loose and not must_name_unit and self.chance(0.5):
            gender = "m" if line.product.kind == "code" else line.product.gender
            return self.count(value, gender, before_noun=False)
        if unit.divisible and value != value.to_integral_value():
            return self.fraction(value, unit)
        one, many = self.unit_form(unit)
        return f"{self.count(value, unit.gender, before_noun=True)} {one if value == 1 else many}"

    def count(self, value: Decimal, gender: str, before_noun: bool) -> str:
        """Word a number of things: digits, words, or "un par de", "una veintena de"."""
        if value != value.to_integral_value() or not self.chance(self.spelling):
            self._note_digits(value)
            return digits(value, self.notation)
        self.features.add("number_words")
        if before_noun and value == 2 and self.chance(0.3):
            self.features.add("collective")
            return "un par de"
        if before_noun and value in ROUND_COUNTS and self.chance(0.3):
            self.features.add("collective")
            return f"{ROUND_COUNTS[int(value)]} de"
        if value >= 2000 and value % 1000 == 0 and self.chance(0.4):
            return f"{value // 1000} mil"
        return words(int(value), gender, before_noun)

    def fraction(self, value: Decimal, unit: Unit) -> str:
        """Word halves and quarters: "media docena", "kilo y medio", "1/2 kg", "2,5 kg"."""
        whole, half = int(value), "medio" if unit.gender == "m" else "media"
        one, many = unit.forms[0]
        spelt = self.chance(max(self.spelling, 0.8 if unit.name == "docena" else 0.3))
        if spelt and whole <= 10:
            self.features |= {"number_words", "fraction_words"}
            if value == HALF:
                return f"{half} {one}"
            if value in (Decimal("0.25"), Decimal("0.75")):
                return f"{'un cuarto' if value < HALF else 'tres cuartos'} de {one}"
            if value - whole == HALF:
                if whole == 1:
                    article = self.rng.choice(("", "un " if unit.gender == "m" else "una "))
                    return f"{article}{one} y {half}"
                return f"{words(whole, unit.gender, True)} {many} y {half}"
        if value == HALF and self.chance(0.5):
            self.features.add("fraction_words")
            return f"1/2 {one}"
        self._note_digits(value)
        return f"{digits(value, self.notation)} {self.unit_form(unit)[1]}"

    # ---- prices ---------------------------------------------------------------------------------

    def price(self, value: Decimal, show_currency: bool) -> str:
        """Word an amount, with the currency where the writer shows it."""
        currency = self.currency if show_currency else None
        whole, cents = int(value), int(value % 1 * 100)
        # "Doce con cinco" could be 12.05 or 12.5, so small cents are not spelt.
        if whole and (cents == 0 or cents >= 10) and self.chance(self.spelling):
            return self._spelt_price(whole, cents, currency)
        if whole >= 2000 and value % 1000 == 0 and self.chance(0.3):
            number = f"{whole // 1000} mil"
        else:
            two = self.chance(0.5 if cents else 0.12) or (whole > 999 and self.chance(0.2))
            two = two or (self.notation.thousands == "," and whole > 999)
            number = digits(value, self.notation, 2 if two else 0)
            self._note_digits(value, "." in number or "," in number)
        if currency is None:
            return number
        place, affix = self.money
        self.features.add(f"currency_{'code' if affix.strip().isalpha() else place}")
        if place == "word" or number.endswith("mil"):
            return f"{number} {currency.words[value != 1]}"
        return f"{affix}{number}" if place == "prefix" else f"{number}{affix}"

    def _spelt_price(self, whole: int, cents: int, currency: Currency | None) -> str:
        self.features.add("number_words")
        text = words(whole, "m", before_noun=currency is not None)
        if currency:
            self.features.add("currency_word")
            text += f" {currency.words[whole != 1]}"
        if cents:
            self.features.add("fraction_words")
            text += f" con {words(cents, 'm', before_noun=bool(currency))}"
            if currency and self.chance(0.5):
                text += f" {currency.cents}"
        return text

    def _note_digits(self, value: Decimal, marked: bool = False) -> None:
        if value != value.to_integral_value():
            self.features.add("decimals")
        if value >= 1000 and (marked or self.notation.thousands):
            self.features.add("thousands_mark")
