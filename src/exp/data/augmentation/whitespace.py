"""Spaces and line breaks between words, never inside a number or a value."""

import re
from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import join

_SENTENCE_END = re.compile(r"[.!?]+ +")
_SHORTEST_WORD = 4
_LINE_END = re.compile(r"\n+")


def whitespace(passage: Passage, rng: Random, strength: float) -> str:
    """Change some of the gaps, and maybe what surrounds the text."""
    gaps = list(passage.gaps)
    last = len(gaps) - 1
    numbers = passage.numeral_words
    places = [
        i
        for i in range(1, last)
        # Beside a number a space may be part of how it is written.
        if i not in passage.joints and i - 1 not in numbers and i not in numbers
    ]
    for i in draw_places(places, rng, strength / 2):
        gaps[i] = _vary(gaps[i], _divides_names(passage, i), rng)
    if rng.random() < strength / 2:
        gaps[last] = gaps[last].rstrip() + rng.choice(("", " ", "\n"))
    if rng.random() < strength / 4:
        gaps[0] = rng.choice(("", " ")) + gaps[0].lstrip()
    return join([word.text for word in passage.words], gaps)


def _divides_names(passage: Passage, i: int) -> bool:
    """Whether a gap is beside an abbreviation or a code, which the next word must not touch."""
    beside = passage.words[i - 1].text, passage.words[i].text
    return any(len(word) < _SHORTEST_WORD or not word.isalpha() for word in beside)


def _vary(gap: str, divides_names: bool, rng: Random) -> str:
    if divides_names and not gap.isspace():
        return gap
    if _SENTENCE_END.fullmatch(gap):
        return rng.choice((gap.rstrip() + "\n", gap + " ", gap.rstrip()))
    if _LINE_END.fullmatch(gap):
        return rng.choice(("\n\n", "\n", " \n"))
    if gap == ", ":
        return rng.choice((",", " , ", ",  ", " ,"))
    if gap and gap.isspace() and "\n" not in gap:
        return "  " if len(gap) == 1 else " "
    return gap
