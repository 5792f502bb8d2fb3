"""From an example to its variants: strategies in a chain, drawn by name, checked at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from exp.config.schema import AugmentationConfig, OutputFormat
from exp.data.augmentation.accents import accents
from exp.data.augmentation.back_translation import BACK_TRANSLATION, BackTranslation
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.draw import draw_weighted, random_of
from exp.data.augmentation.grounding import Grounding, ground, preserves
from exp.data.augmentation.letter_case import letter_case
from exp.data.augmentation.lexicon import Lexicon
from exp.data.augmentation.number_format import number_format
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.punctuation import punctuation
from exp.data.augmentation.renaming import RENAMING, rename
from exp.data.augmentation.synonyms import synonyms
from exp.data.augmentation.target import read_target
from exp.data.augmentation.typos import typos
from exp.data.augmentation.whitespace import whitespace
from exp.data.augmentation.word_order import word_order
from exp.data.field_values import FieldPath
from exp.records import Example, Json

Strategy = Callable[[Passage, Random, float], str]
"""Gets a text, random numbers, and the share of places to change; returns the text anew."""

STRATEGIES: Mapping[str, Strategy] = {
    "word_order": word_order,
    "synonyms": synonyms,
    "number_format": number_format,
    "punctuation": punctuation,
    "typos": typos,
    "accents": accents,
    "letter_case": letter_case,
    "whitespace": whitespace,
}
"""In the order in which they are applied: phrases are looked up before letters are spoilt."""

MAX_DRAWS = 16
"""Draws after which a text is taken to admit no further variant."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A new wording, or None where the text admits no other.

    Attributes:
        text: The wording.
        strategies: What made it.
        num_rejected: Draws before it that lost something of the answer.
        output: The answer, where names in it were changed; None where it is the row's.
    """

    text: str | None
    strategies: tuple[str, ...] = ()
    num_rejected: int = 0
    output: Json = None


@dataclass(frozen=True)
class Augmenter:
    """Makes variants of examples: a pure function of (seed, epoch, example, number).

    Attributes:
        weights: Strategy -> how often it is drawn, beside the others.
        max_strategies: Strategies that make one variant, at the most.
        strength: Share of its places that a strategy changes.
        canon: What the task does with case and accents.
        chain: The strategies by name, in the order in which they are applied.
        renaming: Share of variants in which values of free choice are renamed first.
        free_fields: Where such values stand.
    """

    weights: Mapping[str, float]
    max_strategies: int
    strength: float
    lexicon: Lexicon
    output_format: OutputFormat
    canon: Canon
    seed: int
    chain: Mapping[str, Strategy] = field(default_factory=lambda: STRATEGIES)
    renaming: float = 0.0
    free_fields: frozenset[FieldPath] = frozenset()

    @property
    def digest(self) -> str:
        """Changes with what no setting shows: lexicon, the task's ways, and paraphrases."""
        first = self.chain.get(BACK_TRANSLATION)
        paraphrases = f" {first.digest}" if isinstance(first, BackTranslation) else ""
        return f"{self.lexicon.digest} {self.canon}{paraphrases}"

    def open(self, example: Example) -> Passage:
        """Look at an example's text and answer."""
        target = read_target(example.output, self.output_format)
        return Passage(example.input, target, self.lexicon, self.canon)

    def variants(self, example: Example, epoch: int, count: int) -> list[Variant]:
        """Make the variants 1 to `count` of an example, each unlike the original and the others."""
        original = self.open(example)
        grounding = ground(original)
        taken, made = {example.input}, []
        for number in range(1, count + 1):
            rng = random_of(self.seed, epoch, number, example.id)
            variant = None
            if self.renaming and rng.random() < self.renaming:
                variant = self._draw_renamed(original, grounding, example, taken, rng)
            variant = variant or self._draw(original, grounding, taken, rng)
            made.append(variant)
            if variant.text is not None:
                taken.add(variant.text)
        return made

    def alone(self, example: Example, strategy: str) -> Variant:
        """Make a variant by one strategy, to show what it does."""
        original = self.open(example)
        rng = random_of(self.seed, strategy, example.id)
        return self._draw(original, ground(original), {example.input}, rng, only=strategy)

    def _draw_renamed(
        self,
        original: Passage,
        grounding: Grounding,
        example: Example,
        taken: set[str],
        rng: Random,
    ) -> Variant | None:
        """Make a variant of the example under other names; None where it cannot have any."""
        renamed = rename(original, grounding, example, self.free_fields, rng)
        if renamed is None:
            return None
        passage = self.open(renamed)
        variant = self._draw(passage, ground(passage), taken, rng)
        return replace(
            variant,
            text=variant.text or renamed.input,
            strategies=(RENAMING, *variant.strategies),
            output=renamed.output,
        )

    def _draw(
        self,
        original: Passage,
        grounding: Grounding,
        taken: set[str],
        rng: Random,
        only: str | None = None,
    ) -> Variant:
        num_rejected = 0
        for _ in range(MAX_DRAWS):
            names = [only] if only else self._names(rng)
            passage, effective = self._apply(original, names, rng)
            if passage.text in taken or not passage.text.strip():
                continue
            if preserves(grounding, ground(passage), original.target.ordered):
                return Variant(passage.text, effective, num_rejected)
            num_rejected += 1
        return Variant(None, (), num_rejected)

    def _names(self, rng: Random) -> list[str]:
        drawn = draw_weighted(self.weights, rng.randint(1, self.max_strategies), rng)
        return [name for name in self.chain if name in drawn]

    def _apply(
        self, passage: Passage, names: Sequence[str], rng: Random
    ) -> tuple[Passage, tuple[str, ...]]:
        """Run strategies one after the other; say which of them changed something."""
        effective = []
        for name in names:
            text = self.chain[name](passage, rng, self.strength)
            if text != passage.text:
                passage = passage.rewritten(text)
                effective.append(name)
        return passage, tuple(effective)


def make_augmenter(
    config: AugmentationConfig,
    lexicon: Lexicon,
    output_format: OutputFormat,
    canon: Canon,
    seed: int,
    paraphrases: Mapping[str, tuple[str, ...]] | None = None,
    free_fields: frozenset[FieldPath] = frozenset(),
) -> Augmenter:
    """Put together what the configuration says.

    Args:
        config: The settings.
        lexicon: Words of the task's language.
        output_format: How answers are written.
        canon: What the task does with case and accents.
        seed: Of all random choices.
        paraphrases: Text -> its back-translations. None: back-translation is off.
        free_fields: Fields whose values may be renamed.
    """
    chain = STRATEGIES
    if paraphrases is not None:
        # It replaces the whole text, so whatever came before it would be lost.
        chain = {BACK_TRANSLATION: BackTranslation(paraphrases), **STRATEGIES}
    weights = {name: getattr(config.strategies, name) for name in chain}
    return Augmenter(
        weights,
        config.max_strategies,
        config.strength,
        lexicon,
        output_format,
        canon,
        seed,
        chain,
        config.renaming,
        free_fields,
    )
