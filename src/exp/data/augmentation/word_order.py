"""Sentences, lines and clauses in another order, where the order says nothing.

Only whole bodies move; the marks between them stay. Where the answer has several items, what
carries numbers or values keeps its order; sentences without any may go elsewhere.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from exp.data.augmentation.passage import Passage
from exp.data.augmentation.words import join

_SENTENCE = re.compile(r"[.!?]+[ \n]+|[ \t]*\n+")
_CLAUSE = re.compile(r", |; ")
_SHORTEST_BEFORE_STOP = 4
"""A full stop behind a shorter word may be that of an abbreviation."""


@dataclass(frozen=True, slots=True)
class _Body:
    """Words from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def words(self) -> range:
        return range(self.first, self.last + 1)


def word_order(passage: Passage, rng: Random, strength: float) -> str:
    """Move a sentence that carries nothing, or swap two clauses of a sentence."""
    ways: list[Callable[[Passage, Random], str | None]] = [_move_sentence, _swap_clauses]
    rng.shuffle(ways)
    for way in ways:
        text = way(passage, rng)
        if text is not None and text != passage.text:
            return text
    return passage.text


def _move_sentence(passage: Passage, rng: Random) -> str | None:
    bodies = _split(passage, 0, len(passage.words) - 1, _ends_sentence)
    free = [i for i, body in enumerate(bodies) if _is_free(passage, body)]
    if len(bodies) < 2 or not free:
        return None
    source = rng.choice(free)
    goal = rng.choice([i for i in range(len(bodies)) if i != source])
    order = [i for i in range(len(bodies)) if i != source]
    order.insert(goal, source)
    return _arranged(passage, bodies, order)


def _swap_clauses(passage: Passage, rng: Random) -> str | None:
    if passage.target.ordered or any(w.folded in passage.lexicon.pointers for w in passage.words):
        return None
    sentences = _split(passage, 0, len(passage.words) - 1, _ends_sentence)
    rng.shuffle(sentences)
    for sentence in sentences:
        clauses = _split(passage, sentence.first, sentence.last, _ends_clause)
        told = [_carries(passage, clause) for clause in clauses]
        pairs = [i for i in range(len(clauses) - 1) if told[i] and told[i + 1]]
        if pairs and all(_stands_alone(passage, clause) for clause in clauses):
            i = rng.choice(pairs)
            order = list(range(len(clauses)))
            order[i], order[i + 1] = i + 1, i
            return _arranged(passage, clauses, order)
    return None


def _split(
    passage: Passage, first: int, last: int, ends: Callable[[Passage, int], bool]
) -> list[_Body]:
    """Cut words at the gaps where a body ends."""
    cuts = [i for i in range(first + 1, last + 1) if i not in passage.joints and ends(passage, i)]
    starts, stops = [first, *cuts], [*(cut - 1 for cut in cuts), last]
    return [_Body(a, b) for a, b in zip(starts, stops, strict=True) if a <= b]


def _ends_sentence(passage: Passage, gap: int) -> bool:
    found = passage.gaps[gap]
    if not _SENTENCE.fullmatch(found):
        return False
    return "\n" in found or len(passage.words[gap - 1].text) >= _SHORTEST_BEFORE_STOP


def _ends_clause(passage: Passage, gap: int) -> bool:
    return bool(_CLAUSE.fullmatch(passage.gaps[gap]))


def _is_free(passage: Passage, body: _Body) -> bool:
    """Whether a sentence carries nothing of the answer, and says nothing about another."""
    lexicon = passage.lexicon
    return (
        not any(
            i in passage.fixed
            or passage.words[i].folded in lexicon.pointers
            or any(mark in passage.gaps[i] for mark in ":@/" if i > body.first)
            for i in body.words
        )
        and passage.words[body.first].folded not in lexicon.openers
    )


def _carries(passage: Passage, clause: _Body) -> bool:
    """Whether a clause holds something of the answer; a greeting goes behind none that does."""
    return any(i in passage.sources or i in passage.numeral_words for i in clause.words)


def _stands_alone(passage: Passage, clause: _Body) -> bool:
    """Whether a clause says by itself what its numbers and values are.

    In "láminas, 12, 40" only the order does.
    """
    own = [i for i in clause.words if i not in passage.sources and i not in passage.numeral_words]
    spoken = any(len(passage.words[i].text) > 2 for i in own)
    return spoken and passage.words[clause.first].folded not in passage.lexicon.openers


def _arranged(passage: Passage, bodies: list[_Body], order: list[int]) -> str:
    """Put bodies into another order; the marks between the places stay where they are."""
    words, gaps = [word.text for word in passage.words], list(passage.gaps)
    low, high = bodies[0].first, bodies[-1].last
    new_words: list[str] = words[:low]
    new_gaps: list[str] = gaps[: low + 1]
    for place, source in enumerate(order):
        body = bodies[source]
        own = words[body.first : body.last + 1]
        own[0] = _cased_like(passage, bodies[place].first, body.first)
        new_words += own
        new_gaps += gaps[body.first + 1 : body.last + 1]
        new_gaps.append(gaps[bodies[place].last + 1])
    new_words += words[high + 1 :]
    new_gaps += gaps[high + 2 :]
    return join(new_words, new_gaps)


def _cased_like(passage: Passage, place: int, source: int) -> str:
    """The first word of a moved body, with a capital if the word in its place had one."""
    word, old = passage.words[source].text, passage.words[place].text
    if source in passage.cased or word.isupper() or old.isupper():
        return word
    if old[0].isupper() and word[0].islower():
        return word[0].upper() + word[1:]
    return word[0].lower() + word[1:] if old[0].islower() and word.istitle() else word
