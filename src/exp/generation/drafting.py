"""Drafts: tokens that a completion probably goes on with, to be verified in one forward.

A draft comes from two sources. The input: completions copy from it, so what follows the last tokens
there is likely to follow here. The template: keys and punctuation are the same in all completions.
How often each source was right is counted as rows are decoded, and the counts decide how long
drafts are. Counts depend on tokens alone and never on clocks, so equal calls draft equally.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from exp.generation.settings import GenerationSettings
from exp.generation.template import LONGEST_CONTEXT, START, Continuations, Template

LONGEST_DRAFT = 16
LONGEST_MATCH = 3
"""Tokens that are looked up in the input; longer matches were hardly more often right."""

PRIOR_WEIGHT = 4
"""Trials that a source's first guess counts for."""

CERTAIN = 0.99
"""Share of a continuation above which its context leaves no choice."""

UNLIKELY = 0.05
"""A draft ends where it would be right less often than this."""

COPY, TEMPLATE, NAMED = "copy", "template", "named"
_PRIORS = {(COPY, 1): 0.4, (COPY, 2): 0.75, (COPY, 3): 0.9}

Source = tuple[str, int]


@dataclass(slots=True)
class Odds:
    """How often each source was right."""

    right: dict[Source, int] = field(default_factory=dict)
    tried: dict[Source, int] = field(default_factory=dict)

    def of(self, source: Source) -> float:
        """Estimate the probability that the source's next token is right."""
        kind, grade = source
        prior = _PRIORS.get(source, (grade + 0.5) / 11 if kind == TEMPLATE else 0.75)
        right, tried = self.right.get(source, 0), self.tried.get(source, 0)
        return (right + PRIOR_WEIGHT * prior) / (tried + PRIOR_WEIGHT)

    def count(self, source: Source, right: bool) -> None:
        """Take one verified token in."""
        self.tried[source] = self.tried.get(source, 0) + 1
        self.right[source] = self.right.get(source, 0) + right


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed continuation.

    Attributes:
        tokens: Proposed token ids.
        sources: Where each came from.
        odds: Probability that the draft is right up to and with each token; never rising.
    """

    tokens: tuple[int, ...] = ()
    sources: tuple[Source, ...] = ()
    odds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


class Copybook:
    """The row's own prompt, indexed for looking up."""

    def __init__(self, prompt: Sequence[int], folded: Sequence[int] | None) -> None:
        self.prompt = tuple(prompt)
        keys = _fold(self.prompt, folded)
        self.words = frozenset(keys)
        self.behind: dict[tuple[int, ...], int] = {}
        for length in range(1, LONGEST_MATCH + 1):
            for end in range(length, len(keys)):
                # The first place wins: what an input states early it repeats rather than changes.
                self.behind.setdefault(keys[end - length : end], end)

    def find(self, keys: tuple[int, ...]) -> tuple[int, int]:
        """Longest match of the last keys: the position behind it in the prompt, and its length."""
        for length in range(min(LONGEST_MATCH, len(keys)), 0, -1):
            position = self.behind.get(keys[-length:])
            if position is not None:
                return position, length
        return -1, 0


def _fold(tokens: Sequence[int], folded: Sequence[int] | None) -> tuple[int, ...]:
    """Look up the numbers of tokens; one that the tokenizer does not know stands for itself.

    Models are often padded: they have logits beyond the tokenizer's vocabulary.
    """
    if folded is None:
        return tuple(tokens)
    return tuple(folded[token] if token < len(folded) else token for token in tokens)


def open_drafter(settings: GenerationSettings) -> "Drafter":
    """Make the drafter that greedy settings ask for."""
    return Drafter(settings.template, None if settings.fold is None else settings.fold())


class Drafter:
    """Proposes continuations and learns which of its sources to trust.

    Args:
        template: Learned from training completions; None drafts from the input alone.
        folded: For each token id a number that it shares with the tokens of the same text but for
            white space around it, since a value stands behind a quote in JSON and behind a space
            in the input. None: every token by itself.
    """

    def __init__(
        self, template: Template | None = None, folded: Sequence[int] | None = None
    ) -> None:
        self._template = template
        self._folded = folded
        self.odds = Odds()

    def fresh(self) -> "Drafter":
        """Return a drafter with the same sources that has not judged any yet."""
        return Drafter(self._template, self._folded)

    def copybook(self, prompt: Sequence[int]) -> Copybook:
        """Index a row's own prompt."""
        return Copybook(prompt, self._folded)

    def propose(self, book: Copybook, produced: Sequence[int], limit: int) -> Draft:
        """Propose what follows the tokens produced so far.

        Args:
            book: The row's input.
            produced: The completion so far.
            limit: Tokens at the most.
        """
        context = [
            *([START] if len(produced) < LONGEST_CONTEXT else []),
            *produced[-LONGEST_CONTEXT:],
        ]
        keys = self._keys(produced[-LONGEST_MATCH:])
        tokens: list[int] = []
        sources: list[Source] = []
        odds: list[float] = []
        chance = 1.0
        while len(tokens) < min(limit, LONGEST_DRAFT):
            found = self._next(book, context, keys)
            if found is None:
                break
            token, source = found
            chance *= self.odds.of(source)
            # The first token is proposed however unlikely, so that its source is judged again.
            if chance < UNLIKELY and tokens:
                break
            tokens.append(token)
            sources.append(source)
            odds.append(chance)
            context.append(token)
            keys = (*keys[1 - LONGEST_MATCH :], *self._keys((token,)))
        return Draft(tuple(tokens), tuple(sources), tuple(odds))

    def judge(self, draft: Draft, actual: Sequence[int]) -> None:
        """Compare a draft with what came; a token behind a wrong one is not judged."""
        for proposed, source, came in zip(draft.tokens, draft.sources, actual, strict=False):
            self.odds.count(source, proposed == came)
            if proposed != came:
                break

    def _keys(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return _fold(tokens, self._folded)

    def _next(
        self, book: Copybook, context: Sequence[int], keys: tuple[int, ...]
    ) -> tuple[int, Source] | None:
        """The likeliest next token and its source."""
        candidates: list[tuple[int, Source]] = []
        position, length = book.find(keys)
        if length:
            candidates.append((book.prompt[position], (COPY, length)))
        found = self._template.continuations(context) if self._template is not None else ()
        if found:
            token, share = found[0]
            candidates.append((token, (TEMPLATE, 10 if share > CERTAIN else int(share * 10))))
            if share <= CERTAIN:
                candidates += self._named(book, found)
        return max(candidates, key=lambda one: self.odds.of(one[1]), default=None)

    def _named(self, book: Copybook, found: Continuations) -> list[tuple[int, Source]]:
        """The most frequent continuation that stands in the input: of values, usually the one."""
        named = [(share, one) for one, share in found if self._keys((one,))[0] in book.words]
        if not named:
            return []
        share, token = named[0]
        return [(token, (NAMED, int(4 * share / sum(share for share, _ in named))))]


def choose_lengths(drafts: Sequence[Draft], forward_tokens: float) -> list[int]:
    """Decide how many tokens of each draft to verify in a forward over all rows.

    A forward's time is taken as `forward_tokens` + number of tokens, in the time of one token. The
    likeliest tokens are taken as long as they raise the number of tokens produced per time; that
    is best, since odds within a draft never rise.

    Args:
        drafts: One per row.
        forward_tokens: What a forward costs besides its tokens; how many wrong ones are free.
    """
    lengths = [0] * len(drafts)
    offers = sorted(
        (-chance, place, row)
        for row, draft in enumerate(drafts)
        for place, chance in enumerate(draft.odds)
    )
    produced, cost = float(len(drafts)), forward_tokens + len(drafts)
    for negative, place, row in offers:
        if -negative <= produced / cost:
            break
        lengths[row] = place + 1
        produced -= negative
        cost += 1
    return lengths


def narrow(lengths: Sequence[int]) -> list[int]:
    """Cut the longest drafts until the rows, padded to the widest, hold at most half padding.

    Attention over own tokens works on the padded rectangle; one long draft widens it for all rows.
    """
    widest = max(lengths, default=0)
    while len(lengths) * (widest + 1) > 2 * sum(min(length, widest) + 1 for length in lengths):
        widest -= 1
    return [min(length, widest) for length in lengths]
