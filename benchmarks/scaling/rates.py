"""Write docs/results/scaling.md: training rate and memory against the number of examples.

Run from the checkout, on an idle machine: `python benchmarks/scaling/rates.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exp.data.tasks.orders_es.generate import generate

CHECKOUT = Path(__file__).parents[2]
TARGET = CHECKOUT / "docs" / "results" / "scaling.md"
COMMAND = "python benchmarks/scaling/rates.py"
SIZES = (1_000, 10_000, 100_000)
STEPS, BATCH_SIZE, FIRST_TIMED = 48, 8, 9
INSTRUCTION = "builtin:orders_es/instruction.txt"
SCHEMA = "builtin:orders_es/schema.json"

TEXT = """# Rate and memory against the number of examples

`exp train` on generated orders_es rows, SmolLM2-135M, the shipped settings, {steps} optimizer steps
of {batch} examples; {rounds} rounds, the sizes in turns. The rate is that of steps {first} to
{steps}, in computed tokens per second, from metrics.jsonl: median over the rounds, and its range.
Resident memory is the peak of the whole process, as the operating system counts it. "Before the
first step" is the time from the start of the command to the end of step 1: with cold caches
(reading, auditing and tokenising every row), and again. Made by `{command}`.

| examples | tokens/s | of the smallest | peak RSS, GiB | before the first step, s | again, s |
|---:|---:|---:|---:|---:|---:|
{rows}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One command: its rate, its memory and how long it took to begin."""

    tokens_per_second: float
    peak_rss_gib: float
    seconds_before: float


def main() -> None:
    """Measure every size in turns and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {size: write_rows(folder / f"{size}.jsonl", size) for size in SIZES}
        outcomes: dict[int, list[Outcome]] = {size: [] for size in SIZES}
        for number in range(options.rounds):
            for size, file in files.items():
                outcomes[size].append(measure(file, folder / f"{size}-{number}", folder / "cache"))
                print(size, outcomes[size][-1], flush=True)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(page(outcomes), encoding="utf-8")


def write_rows(path: Path, size: int) -> Path:
    """Write `size` orders as JSON Lines."""
    rows = generate({"train": size}, seed=size)["train"]
    path.write_text("".join(f"{row.to_json()}\n" for row in rows), encoding="utf-8")
    return path


def measure(rows: Path, output: Path, cache: Path) -> Outcome:
    """Train for some steps in a process of its own."""
    words = [
        *("task=jsonl", f"task.train={rows}", "task.validation_fraction=0"),
        *("task.test_fraction=0", f"task.instruction_file={INSTRUCTION}", f"task.schema={SCHEMA}"),
        *("task.language=es", f"training.steps={STEPS}", f"training.batch_size={BATCH_SIZE}"),
        *("training.log_every_steps=1", f"output_dir={output}", "name=run", "tracker=none"),
    ]
    # The converted model is kept; what is cached of the rows begins empty.
    models = Path(os.environ.get("EXP_CACHE_DIR", Path.home() / ".cache" / "exp")) / "models"
    cache.mkdir(exist_ok=True)
    if models.is_dir() and not (cache / "models").exists():
        (cache / "models").symlink_to(models)
    started = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "exp", "train", *words],
        env={**os.environ, "EXP_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exp train ended with {process.returncode}; where: {output}")
    return read_outcome(output / "run" / "metrics.jsonl", usage.ru_maxrss / 2**20, started)


def read_outcome(metrics: Path, peak_rss_gib: float, started: float) -> Outcome:
    """Take the rate of the timed steps out of metrics.jsonl."""
    points = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steps = [point for point in points if "train/tokens_per_second" in point["values"]]
    timed = [point for point in steps if point["step"] >= FIRST_TIMED]
    rates = [point["values"]["train/tokens_per_second"] for point in timed]
    # Tokens over time: a step of many tokens counts for as many.
    seconds = timed[-1]["time"] - steps[FIRST_TIMED - 2]["time"]
    times = [b["time"] - a["time"] for a, b in zip(steps[FIRST_TIMED - 2 :], timed, strict=False)]
    tokens = sum(rate * time for rate, time in zip(rates, times, strict=True))
    return Outcome(tokens / seconds, peak_rss_gib, steps[0]["time"] - started)


def page(outcomes: dict[int, Sequence[Outcome]]) -> str:
    """Return the page as Markdown."""
    smallest = statistics.median(each.tokens_per_second for each in outcomes[min(outcomes)])
    rows = []
    for size, found in outcomes.items():
        rates = sorted(each.tokens_per_second for each in found)
        memory = statistics.median(each.peak_rss_gib for each in found)
        again = statistics.median(each.seconds_before for each in found[1:] or found)
        rows.append(
            f"| {size:,} | {statistics.median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) "
            f"| {statistics.median(rates) / smallest:.2f} | {memory:.2f} "
            f"| {found[0].seconds_before:.1f} | {again:.1f} |"
        )
    return TEXT.format(
        steps=STEPS,
        batch=BATCH_SIZE,
        first=FIRST_TIMED,
        rounds=len(next(iter(outcomes.values()))),
        command=COMMAND,
        rows="\n".join(rows),
    )


if __name__ == "__main__":
    main()
