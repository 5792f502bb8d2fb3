"""Whether the answers of a task keep the case and the accents of the input."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from exp.config.schema import OutputFormat
from exp.data.augmentation.location import find_value
from exp.data.augmentation.target import read_target
from exp.data.augmentation.words import split_words, strip_accents
from exp.records import Example

SAMPLE = 500
"""Rows that are looked at."""
ENOUGH = 0.02
"""Share of values that has to differ from the input before that counts as the task's way, and not
as a slip in a row."""


@dataclass(frozen=True, slots=True)
class Canon:
    """How a task writes the values that it takes from an input.

    Where a task writes "ratón" also for "RATON", the answer does not depend on case and accents of
    the input, so these may vary there. Where it copies, they may not.
    """

    folds_case: bool = False
    folds_accents: bool = False


def learn_canon(examples: Iterable[Example], output_format: OutputFormat) -> Canon:
    """Compare the values of the first rows with the words that they come from."""
    seen = other_case = accented = without_accents = 0
    for example in islice(examples, SAMPLE):
        words = split_words(example.input)
        target = read_target(example.output, output_format)
        for value, folded in zip(target.strings, target.folded_strings, strict=True):
            for first, last in find_value(words, folded):
                found = [word.text for word in words[first : last + 1]]
                wanted = [word.text for word in split_words(value)]
                if [word.folded for word in words[first : last + 1]] != list(folded):
                    continue
                seen += 1
                bare = [strip_accents(word) for word in wanted]
                other_case += wanted == [w.lower() for w in wanted] and (
                    bare != [strip_accents(word) for word in found]
                )
                accented += bare != wanted
                without_accents += bare != wanted and found == [strip_accents(w) for w in found]
    return Canon(other_case > ENOUGH * seen, without_accents > ENOUGH * accented)
