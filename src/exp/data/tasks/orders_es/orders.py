"""What is ordered, before anybody puts it into words, and its canonical form (schema.json)."""

from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from exp.data.tasks.orders_es import lexicon
from exp.data.tasks.orders_es.lexicon import Currency, Product, Unit
from exp.data.tasks.orders_es.numerals import number_json

ONE_TO_FOUR = (1,) * 11 + (2,) * 6 + (3,) * 3 + (4,) * 2
LOOSE = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 20, 21, 24, 25, 30, 35, 40, 45, 50, 60, 75, 80, 100,
         120, 150, 200, 250, 300, 500, 1000, 1200, 1500, 2000, 2500)  # fmt: skip
PACKED = (*range(1, 13), 14, 15, 16, 18, 20, 21, 22, 24, 25, 30, 31, 36, 40, 45, 48, 50, 60, 75, 90,
          100, 120)  # fmt: skip
DOZENS = ("0.5", "0.5", "1", "1.5", "1.5", "2", "2.5", "3", "4", "5", "6", "8", "10", "15")
MEASURES = ("0.5", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "5", "6", "7.5", "8", "10",
            "12", "12.5", "15", "20", "25", "30", "40", "50", "75", "80", "100", "150", "200",
            "0.25", "0.75", "500", "1000", "1500")  # fmt: skip
GRAMS = (50, 100, 150, 200, 250, 300, 350, 400, 500, 600, 750, 800)


@dataclass(frozen=True)
class Line:
    """One product of an order. A quantity or price of None is one that the writer leaves out."""

    product: Product
    unit: Unit
    quantity: Decimal | None
    price: Decimal | None


@dataclass(frozen=True)
class Order:
    lines: tuple[Line, ...]
    currency: Currency | None
    delivery: str | None


def sample_order(rng: Random, split: str) -> Order:
    """Draw an order of one to four lines with products of `split`.

    Head words differ within an order, so that a correction can name its line.
    """
    num_lines = rng.choice(ONE_TO_FOUR)
    currency = rng.choices(lexicon.currencies(), (5, 2, 2, 2))[0]
    priced = rng.random() < 0.75
    lines: list[Line] = []
    while len(lines) < num_lines:
        lines.append(sample_line(rng, split, lines, currency if priced else None))
    said_currency = currency if rng.random() < 0.88 and any(x.price for x in lines) else None
    return Order(
        tuple(lines), said_currency, rng.choice(lexicon.DAYS) if rng.random() < 0.3 else None
    )


def sample_line(rng: Random, split: str, others: list[Line], currency: Currency | None) -> Line:
    """Draw a line whose product no other line has; it has a price only with a currency."""
    heads = [line.product.head for line in others]
    product = rng.choice([p for p in lexicon.products(split) if p.head not in heads])
    unit = lexicon.units()[rng.choice(product.group.units)]
    price = sample_price(rng, product, currency) if currency and rng.random() < 0.85 else None
    if unit.name == "g":
        price = None  # Nobody states the price of one gram.
    quantity: Decimal | None = sample_quantity(rng, unit)
    if rng.random() < 0.06 and unit.name != "g":
        quantity = None
        if price is None:
            unit = lexicon.units()["unidad"]
    return Line(product, unit, quantity, price)


def sample_quantity(rng: Random, unit: Unit) -> Decimal:
    """Draw a quantity that is usual for the unit."""
    if unit.name == "g":
        return Decimal(rng.choice(GRAMS))
    if unit.loose:
        return Decimal(rng.choice(LOOSE))
    if unit.divisible:
        return Decimal(rng.choice(DOZENS if unit.name == "docena" else MEASURES))
    return Decimal(rng.choice(PACKED))


def sample_price(rng: Random, product: Product, currency: Currency) -> Decimal:
    """Draw a price of plausible size, in the roundness in which prices come."""
    low, high = product.group.prices
    price = low * (high / low) ** rng.random() * currency.per_dollar
    if price >= 1000 and rng.random() < 0.35:
        return Decimal(round(price / 1000) * 1000)
    if price >= 100 and rng.random() < 0.5:
        return Decimal(round(price / 50) * 50)
    if price >= 2 and rng.random() < 0.6:
        return Decimal(round(price))
    cents = rng.choice((5, 10, 20, 25, 50, 50, 50, 75, 80, 90, 95, 99))
    return Decimal(int(price)) + Decimal(cents) / 100


def canonical(order: Order) -> dict[str, Any]:
    """Give the order as the JSON object of schema.json, keys in its order."""
    output: dict[str, Any] = {"lineas": [_canonical_line(line) for line in order.lines]}
    if order.currency:
        output["moneda"] = order.currency.name
    if order.delivery:
        output["entrega"] = order.delivery
    return output


def _canonical_line(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"producto": line.product.singular}
    if line.quantity is not None:
        row["cantidad"] = number_json(line.quantity)
    if not line.unit.loose:
        row["unidad"] = line.unit.name
    if line.price is not None:
        row["precio_unitario"] = number_json(line.price)
    return row
