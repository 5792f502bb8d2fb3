"""Slips of the finger in words that no answer turns on."""

from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import fold, join

_SHORTEST = 5
_SHORTEST_TO_DROP = 7
"""A long word is recognised without one of its letters, a short one may be taken for another."""
_SHARE = 0.3
"""Misspelt words, as a share of those that strategies of the same strength change."""


def typos(passage: Passage, rng: Random, strength: float) -> str:
    """Misspell some long words, each in one place, behind its first letter."""
    places = [
        i
        for i, word in enumerate(passage.words)
        if i not in passage.fixed and len(word.text) >= _SHORTEST and word.text.isalpha()
    ]
    words = [word.text for word in passage.words]
    taken = {word.folded for word in passage.words} | passage.lexicon.vocabulary
    for i in draw_places(places, rng, strength * _SHARE):
        slip = _slip(words[i], rng, passage.lexicon.near_keys)
        if fold(slip) not in taken:
            words[i] = slip
    return join(words, passage.gaps)


def _slip(word: str, rng: Random, near_keys: dict[str, str]) -> str:
    i = rng.randrange(1, len(word) - 1)
    ways = [word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i] + word[i:]]
    if len(word) >= _SHORTEST_TO_DROP:
        near = near_keys.get(word[i], "")
        ways.append(word[:i] + word[i + 1 :])
        ways += [word[:i] + key + word[i + 1 :] for key in near]
    return rng.choice(ways)
