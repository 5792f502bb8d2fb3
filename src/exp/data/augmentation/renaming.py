"""Made-up names: values of free choice become other words, in the text and in the answer alike.

A small model learns the few hundred names of its training rows by heart and then looks new ones up
among them. A name that nobody has ever seen can only be copied. Letters change where the value and
every place that it stands at in the text agree, so that what the answer does to a name (it may put
it in the singular, or mend its accents) is the same as before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from random import Random

from exp.config.schema import OutputFormat
from exp.data.augmentation.grounding import Grounding, ground, preserves
from exp.data.augmentation.passage import Passage
from exp.data.augmentation.target import read_target
from exp.data.augmentation.words import Word, gaps, join, split_words
from exp.data.field_values import FieldPath, string_values
from exp.records import Example, Json

RENAMING = "renaming"

_SHORTEST_STEM = 4
_KEPT_ENDING = 2
"""Last letters of a stem that stay: how a word is put in the singular depends on them."""
_CHANGED = 0.35
"""Share of the letters in question that change; at least one does."""
_ALIKE = ("aeiou", "bcdfglmnprstvz")
"""Letters that may stand for each other, so that a word can still be said."""


def rename(
    passage: Passage,
    grounding: Grounding,
    example: Example,
    free: frozenset[FieldPath],
    rng: Random,
) -> Example | None:
    """Rename the values of an example that its text spells out.

    Args:
        passage: The example's text, looked at.
        grounding: What of its answer is found there.
        example: The row.
        free: Fields whose values may change.
        rng: Random numbers.

    Returns:
        None where nothing can be renamed, or where the answer could not be read any more.
    """
    values = [value for path, value in string_values(example.output) if path in free]
    others = {value for path, value in string_values(example.output) if path not in free}
    written = [word.text for word in passage.words]
    renamed: dict[str, str] = {}
    touched: set[int] = set()
    for value in dict.fromkeys(values):
        firsts = [first for (first, _), found in passage.places if found == value]
        parts = split_words(value)
        own = {first + number for first in firsts for number in range(len(parts))}
        if not firsts or value in others or own & touched:
            continue
        texts = [part.text for part in parts]
        for number, part in enumerate(parts):
            places = [first + number for first in firsts]
            letters = _other_letters(part, [passage.words[place] for place in places], rng)
            texts[number] = _with_letters(part.text, letters)
            for place in places:
                written[place] = _with_letters(written[place], letters)
        name = join(texts, gaps(value, parts))
        if name != value:
            renamed[value] = name
            touched |= own
    if not renamed:
        return None
    output = _renamed(example.output, renamed, free)
    text = join(written, passage.gaps)
    target = read_target(output, OutputFormat.json)
    found = ground(replace(passage, text=text, target=target))
    if not preserves(_as_named(grounding, renamed), found, target.ordered):
        return None
    return Example(example.id, text, output, example.meta)


def _renamed(
    output: Json, names: Mapping[str, str], free: frozenset[FieldPath], path: FieldPath = ()
) -> Json:
    if isinstance(output, dict):
        return {key: _renamed(value, names, free, (*path, key)) for key, value in output.items()}
    if isinstance(output, list):
        return [_renamed(value, names, free, (*path, "[]")) for value in output]
    if isinstance(output, str) and path in free:
        return names.get(output, output)
    return output


def _other_letters(part: Word, found: Sequence[Word], rng: Random) -> dict[int, str]:
    """Draw new letters, by place, where a word of a value and all its occurrences agree."""
    words = [part, *found]
    letters_side_by_side = zip(*(word.folded for word in words), strict=False)
    same = takewhile(lambda letters: len(set(letters)) == 1, letters_side_by_side)
    stem = "".join(letters[0] for letters in same)
    # Folding may change the length of a word, and then places do not correspond.
    if len(stem) < _SHORTEST_STEM or any(len(word.text) != len(word.folded) for word in words):
        return {}
    places = [
        place
        for place, letter in enumerate(stem[:-_KEPT_ENDING])
        if any(letter in kind for kind in _ALIKE)
        and all(word.text[place].lower() == letter for word in words)
    ]
    chosen = rng.sample(places, max(1, round(_CHANGED * len(places)))) if places else []
    letters = {}
    for place in chosen:
        kind = next(kind for kind in _ALIKE if stem[place] in kind)
        letters[place] = rng.choice(kind.replace(stem[place], ""))
    return letters


def _with_letters(word: str, letters: Mapping[int, str]) -> str:
    return "".join(
        letter
        if place not in letters
        else letters[place].upper()
        if letter.isupper()
        else letters[place]
        for place, letter in enumerate(word)
    )


def _as_named(grounding: Grounding, names: Mapping[str, str]) -> Grounding:
    def named(event: tuple[str, object]) -> tuple[str, object]:
        kind, value = event
        return (kind, names.get(value, value)) if isinstance(value, str) else event

    return Grounding(
        frozenset(named(event) for event in grounding.values),  # type: ignore[misc]
        tuple(named(event) for event in grounding.events),  # type: ignore[misc]
    )
