"""Surface forms of numbers: digits in the notations in use, words that agree with their noun."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from num2words import num2words

HALF = Decimal("0.5")


@dataclass(frozen=True)
class Notation:
    """How one writer sets digits: the decimal mark, and the mark between thousands.

    A comma between thousands is used only where decimals follow ("1,250.00"), as it would otherwise
    depend on the reader's country.
    """

    decimal: str
    thousands: str


NOTATIONS = (
    Notation(",", "."),
    Notation(",", "."),
    Notation(",", ""),
    Notation(",", " "),
    Notation(".", ""),
    Notation(".", ""),
    Notation(".", " "),
    Notation(".", ","),
)


def digits(value: Decimal, notation: Notation, num_decimals: int | None = None) -> str:
    """Write `value` in digits.

    Args:
        value: A positive number with at most two decimals.
        notation: The writer's marks.
        num_decimals: Decimals to show; at least those that the value has. None: just those.
    """
    shortest = max(0, -int(value.normalize().as_tuple().exponent))
    text = f"{value:.{max(shortest, num_decimals or 0)}f}"
    whole, _, decimals = text.partition(".")
    if len(whole) > 3 and (decimals or notation.thousands != ","):
        whole = whole[:-3] + notation.thousands + whole[-3:]
    return f"{whole}{notation.decimal}{decimals}" if decimals else whole


def words(value: int, gender: str = "m", before_noun: bool = False) -> str:
    """Spell a number below a million: "veintiún" sacos, "veintiuna" cajas, "veintiuno" alone.

    num2words gives the masculine form that stands alone, also before "mil" ("veintiuno mil").
    """
    assert 0 < value < 1_000_000, value
    head, mil, tail = num2words(value, lang="es").partition("mil")
    if mil:
        head = _agree(head.strip(), gender, before_noun=True) if head else ""
    else:
        head, tail = "", head
    tail = _agree(tail.strip(), gender, before_noun)
    return " ".join(part for part in (head, mil, tail) if part)


def _agree(text: str, gender: str, before_noun: bool) -> str:
    if gender == "f":
        text = text.replace("cientos", "cientas").replace("quinientos", "quinientas")
        return text[:-1] + "a" if text.endswith("uno") else text
    if before_noun and text.endswith("veintiuno"):
        return text[:-3] + "ún"
    if before_noun and text.endswith("uno"):
        return text[:-1]
    return text


def is_number(token: str) -> bool:
    """Whether a token, in lower case, has digits or is a part of a spelt number."""
    return any(c.isdigit() for c in token) or token in _number_words()


@cache
def _number_words() -> frozenset[str]:
    return frozenset(
        part
        for value in (*range(1, 102), *range(200, 1000, 100), 1000)
        for gender in "mf"
        for before_noun in (False, True)
        for part in words(value, gender, before_noun).split()
        if part != "y"
    )


def number_json(value: Decimal) -> int | float:
    """Give the canonical JSON number: whole numbers without a decimal point."""
    return int(value) if value == value.to_integral_value() else float(value)
