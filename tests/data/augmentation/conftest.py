"""Passages and augmenters, made in a line."""

from collections.abc import Callable

import pytest

from exp.config.schema import OutputFormat
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.chain import STRATEGIES, Augmenter
from exp.data.augmentation.lexicon import load_lexicon
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.target import read_target

COPIES = Canon()


@pytest.fixture(scope="session")
def passage() -> Callable[..., Passage]:
    """A text with its answer."""

    def build(text, output=None, language="es", canon=COPIES, output_format=OutputFormat.json):
        target = read_target(output, output_format)
        return Passage(text, target, load_lexicon(language, None), canon)

    return build


@pytest.fixture(scope="session")
def augmenter() -> Callable[..., Augmenter]:
    """All strategies with the same weight, unless said otherwise."""

    def build(language="es", seed=0, canon=COPIES, max_strategies=4, strength=0.5, **changes):
        settings = {
            "weights": dict.fromkeys(STRATEGIES, 1.0),
            "max_strategies": max_strategies,
            "strength": strength,
            "lexicon": load_lexicon(language, None),
            "output_format": OutputFormat.json,
            "canon": canon,
            "seed": seed,
        }
        return Augmenter(**{**settings, **changes})

    return build
