"""A small clean corpus of orders over bytes, and how to audit variants of it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from exp.config.schema import OutputFormat
from exp.data.audit.audit import audit
from exp.data.audit.report import AuditReport
from exp.data.audit.settings import AuditSettings
from exp.data.render import ChatFormat, Renderer
from exp.data.task import Task
from exp.model.tokenizer import byte_chat_format
from exp.records import Example

INSTRUCTION = "Write the order as JSON."
SCHEMA = {
    "type": "object",
    "properties": {
        "product": {"type": "string"},
        "quantity": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["box", "piece"]},
    },
    "required": ["product"],
    "additionalProperties": False,
}
PRODUCTS = ("nails", "copper wire", "paper", "blue ink", "hooks", "long screws", "tape", "glue")
PHRASES = (
    "Good morning, we would like to order {n} of your {p}, to be sent to the yard on {d}",
    "{p}: {n}, as agreed on the phone with Mr {d} last week",
    "Could you put {n} {p} aside until {d}? I shall come by",
    "For the {d} site: {p} ({n}); invoice to the office as always",
    "We are short of {p}. Please add {n} to whatever goes out on {d}",
)
WORDS = ("Monday", "Tuesday", "harbour", "Baker", "station", "Friday", "Miller")


class Rows(list):  # type: ignore[type-arg]
    """Examples in memory with what the audit asks of those on disk; nothing refuses them."""

    def __init__(self, examples: Sequence[Example], name: str) -> None:
        super().__init__(examples)
        self.name = name
        self.content_key = hashlib.sha256(repr(examples).encode()).hexdigest()

    def place(self, index: int) -> str:
        return f"{self.name}, line {index + 1}"


def clean(split: str, start: int, count: int) -> list[Example]:
    examples = []
    for number in range(start, start + count):
        phrase = PHRASES[number % len(PHRASES)]
        product = PRODUCTS[number * 3 % len(PRODUCTS)]
        quantity = 2 + number * 7
        # Words that no other row has, so that no two inputs are nearly the same.
        tail = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        text = phrase.format(n=quantity, p=product, d=WORDS[number % len(WORDS)])
        output: dict[str, Any] = {"product": product, "quantity": quantity}
        if number % 3 == 0:
            output["unit"] = "box"
        examples.append(Example(f"{split}-{number}", f"{text}. {tail}", output))
    return examples


SIZES = {"train": (0, 40), "validation": (40, 10), "test": (50, 10)}


SETTINGS = AuditSettings(max_length_tokens=2048)

Corpus = dict[str, list[Example]]


@pytest.fixture
def corpus() -> Corpus:
    """A corpus without a fault; tests may change it."""
    return {split: clean(split, *size) for split, size in SIZES.items()}


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Build a task of examples in memory."""

    def make(splits: Corpus, **changes: Any) -> Task:
        task = Task(
            name="orders",
            instruction=INSTRUCTION,
            output_format=OutputFormat.json,
            schema=SCHEMA,
            language="en",
            monitor="field_f1",
            splits={name: Rows(rows, f"{name}.jsonl") for name, rows in splits.items()},
        )
        return replace(task, **changes)

    return make


@pytest.fixture
def audited(make_task: Callable[..., Task]) -> Callable[..., AuditReport]:
    """Audit a corpus: with a renderer of some class and chat format, under some settings."""

    def run(
        splits: Corpus,
        kind: type[Renderer] = Renderer,
        settings: AuditSettings = SETTINGS,
        chat: ChatFormat | None = None,
        **changes: Any,
    ) -> AuditReport:
        task = make_task(splits, **changes)
        renderer = kind(
            chat or byte_chat_format(), task.instruction, task.output_format, task.schema
        )
        report = audit(task, renderer, settings)
        # What was found is also what comes back from its file.
        assert AuditReport.from_json(json.loads(json.dumps(report.to_json()))) == report
        return report

    return run
