"""An input on its way to a variant: its words, and which of them may change how."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from exp.data.augmentation.canon import Canon
from exp.data.augmentation.lexicon import Lexicon
from exp.data.augmentation.location import Place, find_misspelt, find_value
from exp.data.augmentation.numerals import Numeral, find_numerals
from exp.data.augmentation.target import Target
from exp.data.augmentation.words import Word, gaps, split_words

_MAX_ACRONYM = 5
_STEM = 5
"""Letters by which two inflections of a word are known to be one."""


@dataclass(frozen=True)
class Passage:
    """A text, what is known of its language, and what the answer takes from it."""

    text: str
    target: Target
    lexicon: Lexicon
    canon: Canon

    @cached_property
    def words(self) -> tuple[Word, ...]:
        return split_words(self.text)

    @cached_property
    def gaps(self) -> list[str]:
        """What stands before, between and behind the words."""
        return gaps(self.text, self.words)

    @cached_property
    def numerals(self) -> tuple[Numeral, ...]:
        return find_numerals(self.text, self.words, self.lexicon.numbers)

    @cached_property
    def places(self) -> list[tuple[Place, str]]:
        """Every occurrence of a string value, with the value."""
        return [
            (place, value)
            for value, folded in zip(self.target.strings, self.target.folded_strings, strict=True)
            for place in find_value(self.words, folded)
        ]

    @cached_property
    def sources(self) -> frozenset[int]:
        """Words that values of the answer come from, misspelt ones included."""
        found = {i for (first, last), _ in self.places for i in range(first, last + 1)}
        located = {value for _, value in self.places}
        for value, folded in zip(self.target.strings, self.target.folded_strings, strict=True):
            if value not in located:
                for word in folded:
                    found.update(find_misspelt(self.words, word))
        return frozenset(found)

    @cached_property
    def numeral_words(self) -> frozenset[int]:
        """Words that are, or belong to, a number."""
        return frozenset(i for n in self.numerals for i in range(n.first, n.last + 1))

    @cached_property
    def fixed(self) -> frozenset[int]:
        """Words that stay as they are, but for case and accents.

        Words behind a number are among them: what is counted or measured may decide the answer even
        where the answer names it otherwise. So are words that come twice: the second may take back
        what was said of the first.
        """
        kept = set(self.sources | self.numeral_words)
        kept.update(n.last + 1 for n in self.numerals)
        stems = Counter(word.folded[:_STEM] for word in self.words)
        kept.update(
            i
            for i, word in enumerate(self.words)
            if len(word.folded) >= _STEM and stems[word.folded[:_STEM]] > 1
        )
        shouting = self.text.isupper()
        for i, word in enumerate(self.words):
            acronym = word.text.isupper() and 2 <= len(word.text) <= _MAX_ACRONYM and not shouting
            if acronym or word.folded in self.lexicon.keep:
                kept.add(i)
        return frozenset(kept)

    @cached_property
    def cased(self) -> frozenset[int]:
        """Words that keep their case."""
        kept = {
            i
            for i, word in enumerate(self.words)
            if not word.text.isalpha() or len(word.text) == 1 or _mixed(word.text)
        }
        kept |= {
            n.last + 1
            for n in self.numerals
            if n.last + 1 < len(self.words) and len(self.words[n.last + 1].text) <= 2
        }
        return frozenset(
            kept | self._copied(self.canon.folds_case, lambda value: value.lower() == value)
        )

    @cached_property
    def accented(self) -> frozenset[int]:
        """Words that keep their accents."""
        return self._copied(self.canon.folds_accents, lambda value: True)

    def _copied(self, folds: bool, foldable: Callable[[str], bool]) -> frozenset[int]:
        """Source words whose form the answer may have taken over."""
        if not folds:
            return self.sources
        return frozenset(
            i
            for (first, last), value in self.places
            if not foldable(value)
            for i in range(first, last + 1)
        )

    @cached_property
    def joints(self) -> frozenset[int]:
        """Gaps inside a number or a value; gap i stands before word i."""
        spans = [place for place, _ in self.places]
        spans += [(n.first, n.last) for n in self.numerals]
        inside = {i for first, last in spans for i in range(first + 1, last + 1)}
        inside |= {i for i in self.sources if i - 1 in self.sources}
        return frozenset(inside)

    def rewritten(self, text: str) -> "Passage":
        """The same example in other words."""
        return Passage(text, self.target, self.lexicon, self.canon)

    def span(self, numeral: Numeral) -> tuple[int, int]:
        """Where a number begins and ends, in characters."""
        return self.words[numeral.first].start, self.words[numeral.last].end


def _mixed(word: str) -> bool:
    """Whether a word has capitals inside, like iPhone."""
    return not (word.islower() or word.isupper() or word.istitle())
