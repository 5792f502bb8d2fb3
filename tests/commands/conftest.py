"""A small task, and one finished run of it on two random layers, for the tests of all commands."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from exp import cli

SETTINGS = (
    *("model=tiny", "hardware=cpu", "hardware.precision=fp32", "hardware.cpu_threads=1"),
    *("task=jsonl", "task.name=orders", "task.instruction=Write the order as JSON."),
    "generation.max_new_tokens=6",
)
STEPS = 5


@dataclass(frozen=True)
class Trained:
    """A finished run, the arguments that made it, and the cache that its predictions are in."""

    run: Path
    task: tuple[str, ...]
    arguments: tuple[str, ...]
    cache: Path


def rows(split: str, count: int) -> list[dict[str, object]]:
    names = ("nails", "screws", "pins", "ink", "hooks")
    return [
        {
            "id": f"{split}-{number}",
            "input": f"please send {number} {names[number % len(names)]}"
            + " thanks" * (number % 4),
            "output": {"quantity": number, "product": names[number % len(names)]},
        }
        for number in range(count)
    ]


def write_rows(path: Path, content: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
    return path


def task_arguments(folder: Path) -> tuple[str, ...]:
    """Write the task's files; return the arguments that name them."""
    for split, count in (("train", 18), ("validation", 4), ("test", 5)):
        write_rows(folder / f"{split}.jsonl", rows(split, count))
    return tuple(
        f"task.{split}={folder / split}.jsonl" for split in ("train", "validation", "test")
    )


def training_arguments(folder: Path) -> tuple[str, ...]:
    return (
        *("lora.r=2", "lora.dropout=0.1", f"training.steps={STEPS}", "training.epochs=9"),
        *("training.batch_size=4", "training.micro_batch_size=2", "training.validate_every=0.4"),
        *("training.log_every_steps=1", "training.validation_limit=2", "optimizer.lr=0.05"),
        f"output_dir={folder}",
    )


@contextmanager
def process_left_as_it_was() -> Iterator[None]:
    """Take back what a command changes for its whole process."""
    root, own = logging.getLogger(), logging.getLogger("exp")
    handlers, levels = list(root.handlers), (root.level, own.level)
    environment = dict(os.environ)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
        os.environ.clear()
        os.environ.update(environment)


@pytest.fixture
def exp() -> Iterator[Callable[..., int]]:
    """Run the command line in this process; the exit code comes back."""
    with process_left_as_it_was():
        yield lambda *words: cli.main([str(word) for word in words])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    task = task_arguments(folder)
    arguments = (*SETTINGS, *task, *training_arguments(folder))
    with process_left_as_it_was():
        os.environ["EXP_CACHE_DIR"] = str(folder / "cache")
        assert cli.main(["train", *arguments, "name=first"]) == 0
    return Trained(folder / "first", task, arguments, folder / "cache")


@pytest.fixture
def cached(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The finished run, with the cache that it filled."""
    monkeypatch.setenv("EXP_CACHE_DIR", str(trained.cache))
    return trained
