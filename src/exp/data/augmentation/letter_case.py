"""Capitals and small letters, as people write who type in a hurry or shout."""

from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import join


def letter_case(passage: Passage, rng: Random, strength: float) -> str:
    """Change the case of the whole text, of its first letters, or of some words."""
    way = rng.choice((_all_lower, _all_upper, _initials_lower, _some_upper, _initials_upper))
    words = way(passage, rng, strength)
    return join(
        [
            new if i not in passage.cased and new.lower() == word.text.lower() else word.text
            for i, (word, new) in enumerate(zip(passage.words, words, strict=True))
        ],
        passage.gaps,
    )


def _all_lower(passage: Passage, rng: Random, strength: float) -> list[str]:
    return [word.text.lower() for word in passage.words]


def _all_upper(passage: Passage, rng: Random, strength: float) -> list[str]:
    return [word.text.upper() for word in passage.words]


def _initials_lower(passage: Passage, rng: Random, strength: float) -> list[str]:
    return [w.text.lower() if w.text.istitle() else w.text for w in passage.words]


def _initials_upper(passage: Passage, rng: Random, strength: float) -> list[str]:
    """Capitals at the beginning of each line and sentence."""
    return [
        _initial(w.text, w.text[0].upper()) if i == 0 or set(gap) & set(".!?\n") else w.text
        for i, (w, gap) in enumerate(zip(passage.words, passage.gaps, strict=False))
    ]


def _some_upper(passage: Passage, rng: Random, strength: float) -> list[str]:
    free = [
        i for i, w in enumerate(passage.words) if i not in passage.cased and not w.text.isupper()
    ]
    drawn = set(draw_places(free, rng, strength / 2))
    return [w.text.upper() if i in drawn else w.text for i, w in enumerate(passage.words)]


def _initial(word: str, first: str) -> str:
    return first + word[1:]
