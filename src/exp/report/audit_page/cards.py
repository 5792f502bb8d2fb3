"""Rows token by token, labels apart from the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from exp.data.audit.report import AuditReport, Finding
from exp.data.render import Renderer
from exp.data.task import Task
from exp.errors import DataError
from exp.records import Example, Rendered
from exp.redaction import redact
from exp.report.visible import shorten, visible

MOST_FAULTY = 60
"""Cards of faulty rows; more make the page slow to read, and audit.json lists further ones."""
PER_FINDING = 8
MOST_TOKENS = 1500
MOST_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown; several may share one character, which stands at the last of them."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """One row of a split.

    Attributes:
        anchor: Name of the card on the page.
        reasons: Why it is shown: a check, "long", "by chance".
        faulty: Whether one of the reasons is a check.
        prompt: What its prompt has of its own, without the head that all rows share.
        labels: The completion; every token of it is a label.
        left_out: Tokens that are not shown.
        text: Input and output of a row that cannot be rendered; "" for all others.
    """

    anchor: str
    split: str
    id: str
    place: str
    reasons: tuple[str, ...]
    faulty: bool
    num_tokens: int
    prompt: tuple[Token, ...]
    labels: tuple[Token, ...]
    left_out: int
    text: str


def anchor(split: str, row: int) -> str:
    """Name the card of a row."""
    return f"{split}-{row}"


def make_cards(
    report: AuditReport, task: Task, renderer: Renderer, num_random: int, seed: int
) -> list[Card]:
    """Choose rows and cut them into tokens: faulty ones first, then long ones, then by chance."""
    reasons: dict[tuple[str, int], list[str]] = {}
    faulty: set[tuple[str, int]] = set()
    for finding in report.findings:
        for key in _faulty_rows(finding):
            if key in faulty or len(faulty) < MOST_FAULTY:
                faulty.add(key)
                reasons.setdefault(key, []).append(finding.check)
    for split in report.splits:
        for row, _, _ in split.longest:
            reasons.setdefault((split.name, row), []).append("among the longest")
    for split in report.splits:
        rng = Random(f"{seed}/{split.name}")
        for row in rng.sample(range(split.num_rows), min(num_random, split.num_rows)):
            reasons.setdefault((split.name, row), []).append("by chance")
    return [
        _card(task, renderer, split, row, tuple(why), (split, row) in faulty)
        for (split, row), why in reasons.items()
    ]


def shared_tokens(renderer: Renderer) -> tuple[Token, ...]:
    """Return the tokens that every prompt begins with."""
    return cut(renderer.tokenizer, renderer.head_ids)


def cut(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[Token, ...]:
    """Turn ids into pieces of text that together are the whole text."""
    stream = DecodeStream(skip_special_tokens=False)
    tokens = []
    for number in ids:
        piece = stream.step(tokenizer, number)
        tokens.append(Token(number, "" if piece is None else redact(_shown(piece))))
    return tuple(tokens)


def _shown(piece: str) -> str:
    return visible(piece.replace("\n", "⏎\n"), keep_lines=True)


def _faulty_rows(finding: Finding) -> list[tuple[str, int]]:
    return [(finding.split, row.row) for row in finding.rows[:PER_FINDING]]


def _card(
    task: Task, renderer: Renderer, split: str, row: int, reasons: tuple[str, ...], faulty: bool
) -> Card:
    examples = task.split(split)
    example = examples[row]
    rendered, text = _render(renderer, example)
    own = rendered.prompt_ids[len(renderer.head_ids) :]
    num_shown = max(0, MOST_TOKENS - len(rendered.completion_ids))
    prompt, labels = own[:num_shown], rendered.completion_ids[:MOST_TOKENS]
    return Card(
        anchor=anchor(split, row),
        split=split,
        id=visible(redact(example.id)),
        place=visible(redact(examples.place(row))),
        reasons=tuple(dict.fromkeys(reasons)),
        faulty=faulty,
        num_tokens=len(rendered.prompt_ids) + len(rendered.completion_ids),
        prompt=cut(renderer.tokenizer, prompt),
        labels=cut(renderer.tokenizer, labels),
        left_out=len(own) - len(prompt) + len(rendered.completion_ids) - len(labels),
        text=text,
    )


def _render(renderer: Renderer, example: Example) -> tuple[Rendered, str]:
    try:
        return renderer.render([example])[0], ""
    except DataError as error:
        (prompt,) = renderer.render_prompts([example.input])
        shown = shorten(visible(redact(f"{error.what} {example.output!r}")), MOST_CHARS)
        return Rendered(prompt, ()), shown
