"""One row that is being decoded: what is known of it, and how chosen tokens are taken in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from exp.generation.constraint import Guide
from exp.generation.drafting import Copybook, Draft


@dataclass(frozen=True, slots=True)
class Completion:
    """The tokens behind a prompt, without the stop token, and why they end."""

    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass(slots=True)
class Row:
    """A row in a slot.

    Attributes:
        number: Its place among the prompts.
        known: Own tokens: what the prompt has behind the prefix, then the completion so far.
        prompt_length: How many of them are the prompt's.
        stop_ids: Tokens that end it.
        max_new_tokens: Tokens of the completion at the most.
        guide: What it must obey.
        book: The prompt, for drafts that copy from it.
        stored: How many known tokens have their keys and values in the slot.
        draft: The whole proposal of the forward under way.
        fed: How many tokens of the draft the forward computes.
        came: What the row was found to go on with since the draft was made, stop token included.
        num_forced: Tokens that the guide wrote without asking the model.
    """

    number: int
    known: list[int]
    prompt_length: int
    stop_ids: Collection[int]
    max_new_tokens: int
    guide: Guide | None = None
    book: Copybook | None = None
    stored: int = 0
    finish_reason: str | None = None
    draft: Draft = field(default_factory=Draft)
    fed: int = 0
    came: list[int] = field(default_factory=list)
    num_forced: int = 0
    _accepted: int = 0

    def __post_init__(self) -> None:
        if self.guide is not None:
            self._force(self.guide.forced())

    @property
    def produced(self) -> list[int]:
        """The completion so far."""
        return self.known[self.prompt_length :]

    @property
    def remaining(self) -> int:
        """Tokens that may still come."""
        return self.max_new_tokens + self.prompt_length - len(self.known)

    @property
    def completion(self) -> Completion:
        assert self.finish_reason is not None
        return Completion(tuple(self.produced), self.finish_reason)

    def expect(self, draft: Draft, fed: int) -> list[int]:
        """Begin a forward with a draft; return the tokens to compute."""
        self.draft, self.fed, self.came, self._accepted = draft, fed, [], 0
        return [*self.known[self.stored :], *draft.tokens[:fed]]

    def absorb(self, choices: Sequence[int]) -> int | None:
        """Take tokens in as far as the draft was right.

        Args:
            choices: The likeliest successor of the last known token and of each drafted one.

        Returns:
            None when done; else the index of a choice that the guide does not admit. It is to be
            replaced by the likeliest admitted token before the next call, which goes on there.
        """
        begun = len(self.known) - len(self.came)
        while self.finish_reason is None and self._accepted == len(self.came):
            token = choices[self._accepted]
            if self.guide is not None and not self.guide.admits(token):
                return self._accepted
            self._take(token)
            fed = self.draft.tokens[: self.fed]
            while (
                self._accepted < min(len(fed), len(self.came))
                and fed[self._accepted] == self.came[self._accepted]
            ):
                self._accepted += 1
        self.stored = begun + self._accepted
        return None

    @property
    def accepted(self) -> int:
        """Drafted tokens of the last forward that were right."""
        return self._accepted

    def _take(self, token: int) -> None:
        if token in self.stop_ids:
            self.came.append(token)
            self.finish_reason = "stop"
            return
        self._append(token)
        if self.guide is not None:
            self._force(self.guide.take(token))
        elif self.remaining == 0:
            self.finish_reason = "length"

    def _force(self, tokens: Sequence[int]) -> None:
        """Append what the guide wrote by itself, and see whether the row is at its end."""
        fitting = tokens[: self.remaining]
        for token in fitting:
            self._append(token)
        self.num_forced += len(fitting)
        assert self.guide is not None
        if len(fitting) == len(tokens) and self.guide.complete:
            self.finish_reason = "stop"
        elif self.remaining == 0:
            self.finish_reason = "length"

    def _append(self, token: int) -> None:
        self.known.append(token)
        self.came.append(token)
