"""Whether an answer can still be read from a variant: looked up anew, whatever strategies say.

A value of the answer is grounded where it can be found in the input: a string in any case, accents
and inflection, a number in digits or words. A variant passes where every value that was grounded
still is, where all numbers of the text (also those that the answer does not take) and all words on
which an answer may turn are there as often as before, and in the same order where order may matter.
"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from exp.data.augmentation.numerals import stated_values
from exp.data.augmentation.passage import Passage

Event = tuple[str, str | Decimal]


@dataclass(frozen=True, slots=True)
class Grounding:
    """What of an answer is found in a text.

    Attributes:
        values: The grounded values.
        events: All numbers, grounded strings and decisive words, from left to right.
    """

    values: frozenset[Event]
    events: tuple[Event, ...]


def ground(passage: Passage) -> Grounding:
    """Look the answer's values up in a text."""
    stated = stated_values(passage.text, passage.words, passage.numerals, passage.lexicon.numbers)
    values: set[Event] = {("number", number) for number in passage.target.numbers & stated}
    events: list[tuple[int, str, str | Decimal]] = [
        (numeral.first, "number", numeral.value.normalize()) for numeral in passage.numerals
    ]
    for (first, _), value in passage.places:
        values.add(("string", value))
        events.append((first, "string", value))
    for i, word in enumerate(passage.words):
        if word.folded in passage.lexicon.keep:
            events.append((i, "word", word.folded))
    ordered = sorted(events, key=lambda event: event[:2])
    return Grounding(frozenset(values), tuple((kind, value) for _, kind, value in ordered))


def preserves(original: Grounding, variant: Grounding, ordered: bool) -> bool:
    """Whether a variant has the same answer as the original, as far as it can be looked up.

    Args:
        original: Grounding of the original text.
        variant: Grounding of the variant.
        ordered: Whether the order of events may matter.
    """
    if not original.values <= variant.values:
        return False
    if ordered:
        return original.events == variant.events
    return Counter(original.events) == Counter(variant.events)
