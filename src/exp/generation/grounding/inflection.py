"""The forms that an answer may give to a word of the input, by rules learned from training rows.

An answer may put "TORNILLOS" in the singular and lower case, mend the accent of "camion", or take
a word as it is. Which endings become which is counted over different words, by their last letters:
behind "llos" Spanish drops an s, behind "iones" an es. A form is what the rules of the longest
known ending give. Words of training answers are forms of themselves and of their misspellings, and
where an input lacks accents they have those of the answers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import TypeVar

from exp.data.augmentation.location import ALIKE, SHORTEST_MISSPELT
from exp.data.augmentation.words import fold, strip_accents

LONGEST_ENDING = 3
"""Letters of a word's end that are looked at, and that a rule may replace."""
ENOUGH = 3
"""Different words with an ending before it says anything."""
RARE = 0.04
"""Share of an ending's words below which a rule is a slip of some row, or one word's own way, which
is known anyway."""

ENOUGH_ACCENTS = 8
RARE_ACCENTS = 0.01
"""The same of accents, which depend on more than the ending."""

T = TypeVar("T")

Rule = tuple[str, str]
"""What is cut off the end of a word, and what is put there."""

Accents = tuple[tuple[int, str], ...]
"""Where a word has accented letters, counted from its end (1 is the last), and which."""


@dataclass(frozen=True)
class Inflections:
    """Forms of words.

    Attributes:
        rules: Ending -> what may happen to words that have it; "" for all words.
        accenting: Rules by which words get an accent: that of "camión" is not in "camiones".
        accents: Ending -> the accents of words of answers that have it; () for none.
        lowers: Whether answers are in lower case whatever the input is in.
        raises: Whether answers have words in capitals, like LED.
        known: Words of training answers.
    """

    rules: Mapping[str, Sequence[Rule]]
    accenting: Sequence[Rule]
    accents: Mapping[str, Sequence[Accents]]
    lowers: bool
    raises: bool
    known: Sequence[str]

    def forms(self, word: str, bare_text: bool = False) -> Sequence[str]:
        """All that an answer may write for a word of the input, in a stable order.

        Args:
            word: As the input has it.
            bare_text: Whether it may lack accents because the whole input does.
        """
        known = self._made.get((word, bare_text))
        if known is None:
            known = self._made[word, bare_text] = self._forms(word, bare_text)
        return known

    @cached_property
    def _made(self) -> dict[tuple[str, bool], Sequence[str]]:
        """Inputs of a task have most of their words in common."""
        return {}

    def _forms(self, word: str, bare_text: bool) -> Sequence[str]:
        found: dict[str, None] = {}
        for base in dict.fromkeys([word.lower(), word] if self.lowers else [word]):
            for rule in self._rules_for(base):
                inflected = base[: len(base) - len(rule[0])] + rule[1]
                mends = bare_text or rule in self.accenting
                found.update(dict.fromkeys(self._accented(inflected, mends)))
        if self.raises:
            found[word.upper()] = None
        found.update(dict.fromkeys(self._misspelt(word)))
        return list(found)

    def _rules_for(self, word: str) -> Sequence[Rule]:
        folded = fold(word)
        if any(letter.isdigit() for letter in word) or len(folded) != len(word):
            return (("", ""),)
        rules = _of_longest_ending(self.rules, folded)
        return [rule for rule in rules if folded.endswith(rule[0])] or (("", ""),)

    def _accented(self, word: str, mends: bool) -> Iterable[str]:
        """A word that has accents with and without them; one that lacks them with the usual."""
        if not word.isascii():
            yield word
            yield strip_accents(word)
            return
        if not (mends and self.accents and word.isalpha()):
            yield word
            return
        as_known = self._known_as.get(word.lower())
        if as_known:
            yield from as_known
            return
        usual = list(_of_longest_ending(self.accents, word.lower()))
        if len(word) <= LONGEST_ENDING:
            # The ending is the whole word here, and says nothing of others.
            usual = [(), *(((len(word) - i, x),) for i in range(len(word)) for x in self._letters)]
        for accents in usual:
            if all(
                place <= len(word) and fold(letter) == word[-place] for place, letter in accents
            ):
                letters = list(word)
                for place, letter in accents:
                    letters[-place] = letter
                yield "".join(letters)

    @cached_property
    def _letters(self) -> Sequence[str]:
        found = self.accents.values()
        return sorted({x for usual in found for accents in usual for _, x in accents})

    def _misspelt(self, word: str) -> Iterable[str]:
        """Known words that the word is, but for case and accents, or may be a slip of."""
        folded = fold(word)
        matcher = SequenceMatcher(autojunk=False)
        matcher.set_seq2(folded)
        for known, known_folded in self._known_by_letter.get(folded[:1], ()):
            if known_folded == folded:
                yield known
            if min(len(folded), len(known_folded)) < SHORTEST_MISSPELT:
                continue
            if abs(len(known_folded) - len(folded)) > LONGEST_ENDING:
                continue
            matcher.set_seq1(known_folded)
            if matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE:
                yield known

    @cached_property
    def _known_as(self) -> Mapping[str, Sequence[str]]:
        """Folded -> the words of training answers: they have their accents right."""
        table = defaultdict(list)
        for word in self.known:
            table[fold(word)].append(word)
        return table

    @cached_property
    def _known_by_letter(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        table = defaultdict(list)
        for word in self.known:
            table[fold(word)[:1]].append((word, fold(word)))
        return table


@dataclass(frozen=True, slots=True, order=True)
class Taken:
    """A word of an input and what an answer made of it.

    Attributes:
        source: The word as the input has it.
        written: The word as the answer has it.
        bare_text: Whether the input has no accents at all.
    """

    source: str
    written: str
    bare_text: bool


def learn_inflections(words_taken: Iterable[Taken], known: Iterable[str]) -> Inflections:
    """Count what becomes of the words of inputs.

    Args:
        words_taken: Words of training inputs in training answers.
        known: Words of answers.
    """
    different = sorted(set(words_taken))
    counts: defaultdict[str, Counter[Rule]] = defaultdict(Counter)
    seen_marked: Counter[Rule] = Counter()
    accented: Counter[Rule] = Counter()
    once = set()
    for taken in different:
        rule = _rule_of(taken)
        if rule is None:
            continue
        word = fold(taken.source)
        if (word, rule) not in once:
            once.add((word, rule))
            for length in range(min(LONGEST_ENDING, len(word)) + 1):
                counts[word[len(word) - length :]][rule] += 1
        if not taken.bare_text:
            seen_marked[rule] += 1
            accented[rule] += taken.source.isascii() and not taken.written.isascii()
    words = sorted(set(known))
    mends = any(each.source.isascii() and not each.written.isascii() for each in different)
    return Inflections(
        rules=_frequent(counts, ENOUGH, RARE),
        accenting=sorted(
            rule for rule, count in accented.items() if count >= RARE * seen_marked[rule]
        ),
        accents=_frequent(_count_accents(words), ENOUGH_ACCENTS, RARE_ACCENTS) if mends else {},
        lowers=any(x.written.islower() and not x.source.islower() for x in different),
        raises=any(word.isupper() for word in words),
        known=words,
    )


def _count_accents(words: Iterable[str]) -> Mapping[str, Counter[Accents]]:
    counts: defaultdict[str, Counter[Accents]] = defaultdict(Counter)
    # In order, or those that are equally frequent would come in another one in each process.
    for word in sorted({word.lower() for word in words if word.isalpha()}):
        folded = fold(word)
        if len(folded) == len(word):
            accents = tuple(
                (len(word) - place, letter)
                for place, letter in enumerate(word)
                if letter != folded[place]
            )
            for length in range(min(LONGEST_ENDING, len(word)) + 1):
                counts[folded[len(word) - length :]][accents] += 1
    return counts


def _frequent(counts: Mapping[str, Counter[T]], enough: int, rare: float) -> dict[str, list[T]]:
    """Keep endings that enough words have, and of each what is not rare."""
    return {
        ending: [each for each, count in seen.most_common() if count >= rare * seen.total()]
        for ending, seen in sorted(counts.items())
        if seen.total() >= enough or not ending
    }


def _of_longest_ending(table: Mapping[str, Sequence[T]], word: str) -> Sequence[T]:
    for length in range(min(LONGEST_ENDING, len(word)), -1, -1):
        found = table.get(word[len(word) - length :])
        if found is not None:
            return found
    return ()


def _rule_of(taken: Taken) -> Rule | None:
    """The rule that leads from the one word to the other; None where it is more than an ending."""
    word, form = fold(taken.source), fold(taken.written)
    if not word.isalpha() or len(word) != len(taken.source) or len(form) != len(taken.written):
        return None
    common = 0
    while common < min(len(word), len(form)) and word[common] == form[common]:
        common += 1
    rule = (word[common:], form[common:])
    return rule if max(map(len, rule)) <= LONGEST_ENDING else None
