"""A whole message around an order: greeting, lines, corrections, delivery, distractors, closing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from exp.data.tasks.orders_es import lexicon, noise
from exp.data.tasks.orders_es.numerals import is_number
from exp.data.tasks.orders_es.orders import Line, Order, sample_line
from exp.data.tasks.orders_es.phrasing import Writer

REGISTERS = ("correo", "whatsapp", "whatsapp", "lista", "telefono")
BULLETS = ("- ", "* ", "", "", "• ")
# Probability per register of: one case, no accents, misspellings.
NOISE = {
    "correo": (0.08, 0.12, 0.10),
    "whatsapp": (0.55, 0.55, 0.40),
    "lista": (0.50, 0.40, 0.20),
    "telefono": (0.25, 0.20, 0.15),
}


@dataclass(frozen=True)
class Message:
    """A finished text, with the templates that made it and the difficulties that are in it."""

    text: str
    templates: frozenset[str]
    features: frozenset[str]


@dataclass(frozen=True)
class Draft:
    """What is said first, where a later sentence corrects it to the order that counts."""

    lines: tuple[Line, ...]
    delivery: str | None
    corrections: tuple[str, ...] = ()


def write(rng: Random, order: Order, split: str) -> Message:
    """Put an order into words, as one of the registers does.

    Args:
        rng: Decides everything, together with the other arguments.
        order: What the text must come down to.
        split: Whose products serve as the ones that are cancelled, and whose templates are used.
    """
    writer = Writer.sample(rng, split, rng.choice(REGISTERS), order.currency)
    draft = _draft(writer, order, split)
    body = _body(writer, draft)
    extras = _extras(writer, order, draft)
    early = [extras.pop() for _ in extras[:1] if writer.chance(0.25)]
    greeting = [_about(writer, "greeting")] if writer.chance(0.6) else []
    closing = [_about(writer, "closing")] if writer.chance(0.5) else []
    if greeting:
        writer.features.add("greeting")
    parts = [*greeting, *early, body, *extras, *draft.corrections, *closing]
    text = _dirty(writer, _assemble(writer, parts))
    writer.features |= {writer.register, f"lines_{len(order.lines)}"}
    return Message(text, frozenset(writer.templates), frozenset(writer.features))


def _draft(writer: Writer, order: Order, split: str) -> Draft:
    """Decide what the writer says first and takes back later, if anything."""
    if not writer.chance(0.3):
        return Draft(order.lines, order.delivery)
    kinds = ["quantity", "quantity", "price", "swap", "cancel"] + ["day"] * (
        order.delivery is not None
    )
    kind = writer.rng.choice(kinds)
    index = writer.rng.randrange(len(order.lines))
    line = order.lines[index]
    scope = "one" if len(order.lines) == 1 else "many"
    named = {"el": writer.the(line.product), "del": writer.of_the(line.product)}
    if kind == "day":
        wrong_day = writer.rng.choice([day for day in lexicon.DAYS if day != order.delivery])
        said = writer.pick("correction", "day").format(**_day_slots(order.delivery or ""))
        return _corrected(writer, kind, Draft(order.lines, wrong_day, (said,)))
    if kind == "cancel" and len(order.lines) < 4:
        extra = sample_line(writer.rng, split, list(order.lines), None)
        index = writer.rng.randrange(len(order.lines) + 1)
        lines = (*order.lines[:index], extra, *order.lines[index:])
        named = {"el": writer.the(extra.product), "del": writer.of_the(extra.product)}
        said = writer.pick("correction", "cancel").format(**named)
        return _corrected(writer, kind, Draft(lines, order.delivery, (said,)))
    if kind == "quantity" and line.quantity is not None:
        wrong = replace(line, quantity=writer.other_number(line, "quantity"))
        named["q"] = writer.quantity(line)
        said = writer.pick("correction", f"quantity_{scope}").format(**named)
    elif kind == "price" and line.price is not None and writer.currency:
        wrong = replace(line, price=writer.other_number(line, "price"))
        named["money"] = writer.price(line.price, show_currency=True)
        said = writer.pick("correction", f"price_{scope}").format(**named)
    elif kind == "swap" and line.quantity is not None and line.price is None:
        heads = {other.product.head for other in order.lines}
        group = [p for p in lexicon.products(split) if p.group == line.product.group]
        others = [p for p in group if p.head not in heads]
        if not others:
            return Draft(order.lines, order.delivery)
        other = writer.rng.choice(others)
        wrong = replace(line, product=other)
        said = writer.pick("correction", "swap").format(
            prod=writer.product(line.product),
            other=writer.product(other),
            el_other=writer.the(other),
            del_other=writer.of_the(other),
        )
    else:
        return Draft(order.lines, order.delivery)
    lines = (*order.lines[:index], wrong, *order.lines[index + 1 :])
    return _corrected(writer, kind, Draft(lines, order.delivery, (said,)))


def _corrected(writer: Writer, kind: str, draft: Draft) -> Draft:
    writer.features |= {"correction_late", f"correction_{kind}"}
    return draft


def _body(writer: Writer, draft: Draft) -> str:
    request = writer.pick("request", writer.register)
    style = "np" if "{np}" in request else "item"
    lines = []
    currency_due = True
    for line in draft.lines:
        shown = line.price is not None and (currency_due or writer.chance(0.75))
        lines.append(writer.line(line, style, shown))
        currency_due = currency_due and line.price is None
    if "{list}" in request:
        bullet = writer.rng.choice(BULLETS)
        return request.format(list="\n".join(bullet + line for line in lines))
    return request.format(**{style: join(lines)})


def join(lines: Sequence[str]) -> str:
    """Join lines of a sentence: commas, or semicolons where a line has commas of its own.

    A mark before "y" keeps "a cincuenta, y dos cajas" from being read as fifty-two.
    """
    if len(lines) == 1:
        return lines[0]
    mark = "; " if any(", " in line for line in lines) else ", "
    *_, before, last = lines
    ends_in_number = is_number(before.split()[-1])
    runs_on = last.startswith("medi") or (ends_in_number and is_number(last.split()[0]))
    conjunction = "e" if re.match("(i|hi)(?!e)", last.lower()) else "y"
    return mark.join(lines[:-1]) + (mark if runs_on else " ") + f"{conjunction} {last}"


def _extras(writer: Writer, order: Order, draft: Draft) -> list[str]:
    """Say the delivery, and things that look like parts of an order and are none, in any order."""
    extras = []
    if draft.delivery:
        writer.features.add("delivery")
        template = writer.pick("delivery", writer.register)
        extras.append(template.format(**_day_slots(draft.delivery)))
    if writer.chance(0.42):
        extras.append(_about(writer, "distractor"))
        writer.features.add("distractor")
    if writer.currency and writer.chance(0.1):
        writer.features.add("distractor")
        total = Decimal(writer.rng.randrange(20, 200) * 50 * writer.currency.per_dollar)
        amount = writer.price(total, show_currency=True)
        extras.append(writer.pick("total", "any").format(total=amount))
    writer.rng.shuffle(extras)
    return extras


def _day_slots(day: str) -> dict[str, str]:
    named = day if day in ("hoy", "mañana") else f"el {day}"
    return {"dia": day, "el_dia": named, "para": f"para {named}"}


def _about(writer: Writer, kind: str) -> str:
    """Fill a template about the writer with made-up particulars."""
    rng = writer.rng
    year, month, day = rng.randint(2019, 2026), rng.randint(1, 12), rng.randint(1, 28)
    street = rng.choice(lexicon.words_of("streets", writer.names))
    letter = rng.choice("ABCFNPT")
    slots = {
        "name": rng.choice(lexicon.words_of("people", writer.names)),
        "phone": rng.choice(
            (
                f"9{rng.randint(10**7, 10**8 - 1)}",
                f"+51 9{rng.randint(10, 99)} {rng.randint(100, 999)} {rng.randint(100, 999)}",
                f"({rng.randint(11, 99)}) {rng.randint(4000, 4999)}-{rng.randint(1000, 9999)}",
            )
        ),
        "date": rng.choice((f"{day:02}/{month:02}/{year}", f"{day}-{month}-{year}")),
        "ref": f"{letter}-{rng.randint(1000, 99999)}/{year % 100}",
        "address": f"{street} {rng.randint(100, 1999)}",
        "taxid": f"20{rng.randint(10**8, 10**9 - 1)}",
        "client": str(rng.randint(1000, 99999)),
        "hours": rng.choice(("8 a 16 h", "9:00 a 18:30", "7 a 15 h")),
        "weekday": rng.choice(lexicon.DAYS[2:]),
        "past": rng.choice(("30", "tres", "80", "quince")),
    }
    return writer.pick(kind, writer.register).format(**slots)


def _assemble(writer: Writer, parts: list[str]) -> str:
    """Set the parts one after another as the register does."""
    if writer.register == "lista":
        return "\n".join(parts)
    if writer.register == "whatsapp":
        mark = writer.rng.choice((". ", ", ", "\n", "\n"))
        text = parts[0]
        for part in parts[1:]:
            glue = "\n" if "\n" in text + part else mark
            text += (" " if text[-1] in ".,:?!" and glue != "\n" else glue) + part
        return text
    text = parts[0]
    for part in parts[1:]:
        if text.endswith(","):
            part = part[0].lower() + part[1:]
        text += ("\n" if "\n" in text + part else " ") + part
    return text


def _dirty(writer: Writer, text: str) -> str:
    rng = writer.rng
    # An abbreviation at the end of a sentence has one full stop.
    text = re.sub(r"(?<!\.)\.\.(?!\.)", ".", text)
    one_case, no_accents, misspelt = NOISE[writer.register]
    if writer.chance(misspelt):
        writer.features.add("misspelt")
        text = noise.misspell(rng, text, rng.randint(1, 3))
    if writer.chance(one_case):
        upper = writer.register == "lista" and writer.chance(0.35)
        writer.features.add("upper" if upper else "lower")
        text = text.upper() if upper else noise.lower(text)
    if writer.chance(no_accents):
        plain = noise.unaccent(text)
        if plain != text:
            writer.features.add("unaccented")
        text = plain
    return text
