"""Choices of an answer, like a unit or a currency, that only stand where the input speaks of them.

A small model likes to fill in what is usual: pesos for an order that names no currency. Whether an
input speaks of a choice is told by its words: each choice has a few of them in training rows, and
where none stands in an input, misspelt or not, the choice cannot be meant. Where a choice is named
as it is, and training rows show that answers then have the field, one of its choices must be
written: what comes last in an answer is what a small model leaves out longest.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

from exp.data.augmentation.location import ALIKE, SHORTEST_MISSPELT
from exp.data.augmentation.words import strip_accents
from exp.data.field_values import FieldPath, string_values
from exp.data.free_fields import MOST_LISTED
from exp.generation.grounding.halves import halves
from exp.records import Example

ENOUGH_VALUES = 50
"""Rows that have a field before it can be told what speaks for its choices."""
ENOUGH_ROWS = 10
"""Rows that have a choice, of the half that it is first learned from, and rows that have not; one
that is rarer may always be written."""
MOST_MISSED = 0.05
"""Share of rows with a choice that have no word which speaks for it, above which it may always be
written; and of a field's values in rows that nothing was learned from, above which the whole field
is left free: its choices are meant, not said."""
MOST_SIGNS = 12
"""Words that speak for one choice. What takes more of them is a matter of meaning."""
LIFT = 3.0
"""How much likelier a word must be where the choice is made than elsewhere."""
RAREST_SIGN = 0.01
"""Share of a choice's rows that have a word before it counts as one that speaks for it."""
FEWEST_WITH_SIGN = 3
"""The same as a number of rows: a word of two rows is theirs by chance."""

_TOKEN = re.compile(r"[^\W\d_]+")

Words = frozenset[str]


def words_of(text: str) -> Words:
    """Runs of letters, without case and accents, and symbols like $."""
    folded = strip_accents(text).casefold()
    symbols = (letter for letter in folded if unicodedata.category(letter)[0] == "S")
    return frozenset([*_TOKEN.findall(folded), *symbols])


@dataclass(frozen=True)
class ChoiceRules:
    """What must stand in an input for each choice of one field.

    Attributes:
        signs: Choice -> words of which one has to be there, or else all words of the choice itself.
            Others may always be written.
        against: Words beside which the name of a choice says nothing, like "pasado" in "el lunes
            pasado". Without one of them an answer to an input that names a choice has the field.
            None: it may always do without.
    """

    signs: Mapping[str, Sequence[str]]
    against: Sequence[str] | None = None

    def admits(self, choice: str, words: Words) -> bool:
        """Tell whether a choice may be written for an input of these words."""
        signs = self.signs.get(choice)
        return (
            signs is None
            or any(sign in words for sign in signs)
            or words_of(choice) <= words
            or any(choice in self._misspelt(word) for word in words)
        )

    def needs(self, words: Words) -> bool:
        """Tell whether the field may not be left out for an input of these words."""
        return (
            self.against is not None
            and any(name <= words for name in self._names)
            and not any(
                word == each or _is_slip(word, each) for word in words for each in self.against
            )
        )

    def _misspelt(self, word: str) -> frozenset[str]:
        """Choices for which a word speaks that this one may be a misspelling of."""
        known = self._known.get(word)
        if known is None:
            alike = (s for s in self._by_letter.get(word[0], ()) if _is_slip(word, s))
            meant = frozenset(choice for sign in alike for choice in self._choices[sign])
            known = self._known[word] = meant
        return known

    @cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        """Inputs of a task have most of their words in common."""
        return {}

    @cached_property
    def _names(self) -> Sequence[Words]:
        """The choices' own words. Other signs may be those of rows that just were like others."""
        return [name for name in map(words_of, self.signs) if name]

    @cached_property
    def _choices(self) -> Mapping[str, Sequence[str]]:
        """Sign -> the choices that it speaks for."""
        table = defaultdict(list)
        for choice, signs in self.signs.items():
            for sign in signs:
                table[sign].append(choice)
        return table

    @cached_property
    def _by_letter(self) -> Mapping[str, Sequence[str]]:
        table = defaultdict(list)
        for sign in self._choices:
            table[sign[0]].append(sign)
        return table


def _is_slip(word: str, sign: str) -> bool:
    if min(len(word), len(sign)) < SHORTEST_MISSPELT:
        return False
    return SequenceMatcher(None, sign, word, autojunk=False).ratio() >= ALIKE


def learn_choices(rows: Sequence[Example]) -> dict[FieldPath, ChoiceRules]:
    """Learn which fields are choices that inputs speak of, and by which words.

    A field is one only if the words of half of the rows tell the choices of the other half.
    """
    texts = [words_of(example.input) for example in rows]
    made: defaultdict[FieldPath, list[frozenset[str]]] = defaultdict(
        lambda: [frozenset()] * len(rows)
    )
    for row, example in enumerate(rows):
        for path, value in string_values(example.output):
            made[path][row] |= {value}
    fields: dict[FieldPath, ChoiceRules] = {}
    for path, choices in sorted(made.items()):
        few = len(frozenset().union(*choices)) <= MOST_LISTED
        if few and sum(map(bool, choices)) >= ENOUGH_VALUES:
            rules = _learn_field(texts, choices, _told_by_half(texts, choices))
            if rules.signs:
                # How many entries a list needs, no word tells.
                needed = "[]" not in path and _need_holds(texts, choices, rules)
                against = _words_against(texts, choices, rules) if needed else None
                fields[path] = ChoiceRules(rules.signs, against)
    return fields


def _told_by_half(texts: Sequence[Words], choices: Sequence[frozenset[str]]) -> set[str]:
    """Learn from half of the rows and try it on the others.

    Returns:
        The choices that could be tried; none where the field is not told by words.
    """
    first, second = halves(zip(texts, choices, strict=True))
    seen = Counter(choice for _, made in first for choice in made)
    often = {choice for choice, count in seen.items() if count >= ENOUGH_ROWS}
    learned = _learn_field([words for words, _ in first], [made for _, made in first], often)
    tried = [(each, words) for words, made in second for each in made & often]
    missed = sum(
        each not in learned.signs or not learned.admits(each, words) for each, words in tried
    )
    return often if missed <= MOST_MISSED * len(tried) else set()


def _need_holds(
    texts: Sequence[Words], choices: Sequence[frozenset[str]], rules: ChoiceRules
) -> bool:
    """Learn from half of the rows where a field is needed, and try it on the others."""
    first, second = halves(zip(texts, choices, strict=True))
    against = _words_against([words for words, _ in first], [made for _, made in first], rules)
    learned = ChoiceRules(rules.signs, against)
    needed = [bool(made) for words, made in second if learned.needs(words)]
    return len(needed) >= ENOUGH_ROWS and needed.count(False) <= MOST_MISSED * len(needed)


def _words_against(
    texts: Sequence[Words], choices: Sequence[frozenset[str]], rules: ChoiceRules
) -> tuple[str, ...]:
    """Find the words of inputs that name a choice, and whose answers are without the field."""
    named = ChoiceRules(rules.signs, ())
    rows = [(bool(made), words) for words, made in zip(texts, choices, strict=True)]
    rows = [(made, words) for made, words in rows if named.needs(words)]
    return _signs_of([words for made, words in rows if not made], [w for made, w in rows if made])


def _learn_field(
    texts: Sequence[Words], choices: Sequence[frozenset[str]], which: set[str]
) -> ChoiceRules:
    signs = {}
    for choice in sorted(which):
        having = [words for words, made in zip(texts, choices, strict=True) if choice in made]
        others = [words for words, made in zip(texts, choices, strict=True) if choice not in made]
        found = _signs_of(having, others)
        told = ChoiceRules({choice: found})
        missed = sum(not told.admits(choice, words) for words in having)
        if len(others) >= ENOUGH_ROWS and missed <= MOST_MISSED * len(having):
            signs[choice] = found
    return ChoiceRules(signs)


def _signs_of(having: Sequence[Words], others: Sequence[Words]) -> tuple[str, ...]:
    """Take words until all rows with a choice have one, or no word speaks for it any more.

    The next is the one that most rows without a sign have, for each row without the choice.
    """
    beyond = Counter(word for words in others for word in words)
    rarest = max(FEWEST_WITH_SIGN, RAREST_SIGN * len(having))
    usual = len(having) / (len(others) + 1)
    left, signs = list(having), list[str]()
    while left and len(signs) < MOST_SIGNS:
        counts = Counter(word for words in left for word in words)
        gains = {
            word: count / (beyond[word] + 1)
            for word, count in counts.items()
            if count >= rarest and count >= LIFT * usual * (beyond[word] + 1)
        }
        if not gains:
            break
        signs.append(min(gains, key=lambda word: (-gains[word], word)))
        left = [words for words in left if signs[-1] not in words]
    return tuple(signs)
