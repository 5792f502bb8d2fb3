"""Accents left out, as on many phones and keyboards."""

from random import Random

from exp.data.augmentation.draw import draw_places
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import join, strip_accents


def accents(passage: Passage, rng: Random, strength: float) -> str:
    """Drop the accents of all words that may lose them, or of some."""
    kept = passage.lexicon.kept_accents
    bare = [strip_accents(word.text, kept) for word in passage.words]
    places = [
        i
        for i, word in enumerate(passage.words)
        if i not in passage.accented and bare[i] != word.text
    ]
    drawn = set(places if rng.random() < 0.5 else draw_places(places, rng, strength))
    words = [bare[i] if i in drawn else word.text for i, word in enumerate(passage.words)]
    return join(words, passage.gaps)
