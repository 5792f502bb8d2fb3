"""Where in an input a string value of the answer comes from."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from exp.data.augmentation.words import Word

_LONGEST_GAP = 3
"""Characters between two words of a value: "AB - 12"."""
SHORTEST_MISSPELT = 5
ALIKE = 0.75
"""Share of letters that a misspelt word has in common with the right one."""

Place = tuple[int, int]
"""First and last word of an occurrence."""


def find_value(words: Sequence[Word], value: Sequence[str]) -> Iterator[Place]:
    """Find a value in any inflection: "lápiz" occurs in "LAPICES".

    Args:
        words: The words of the input.
        value: The words of the value, folded.
    """
    size = len(value)
    first = value[0]
    for i in range(len(words) - size + 1):
        if words[i].folded[0] != first[0] or not inflected(first, words[i].folded):
            continue
        if all(
            inflected(value[k], words[i + k].folded)
            and words[i + k].start - words[i + k - 1].end <= _LONGEST_GAP
            for k in range(1, size)
        ):
            yield i, i + size - 1


def inflected(word: str, other: str) -> bool:
    """Whether two folded words differ by no more than an ending."""
    if word == other:
        return True
    if any(c.isdigit() for c in word):
        return False
    common = 0
    for a, b in zip(word, other, strict=False):
        if a != b:
            break
        common += 1
    ending, others = len(word) - common, len(other) - common
    if len(word) <= 2:
        return ending == 0 and other[common:] in ("s", "es")
    return others <= 3 and ((ending <= 1 and common >= 2) or (ending <= 2 and common >= 3))


def find_misspelt(words: Sequence[Word], value_word: str) -> Iterator[int]:
    """Find words that may be a misspelt word of a value; rather too many than too few."""
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(value_word)
    for i, word in enumerate(words):
        if word.folded[0] != value_word[0]:
            continue
        if inflected(value_word, word.folded):
            yield i
        elif len(value_word) >= SHORTEST_MISSPELT and len(word.folded) >= SHORTEST_MISSPELT:
            matcher.set_seq1(word.folded)
            if matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE:
                yield i
