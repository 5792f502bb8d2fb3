"""Run the peers and this project in turn, and print how their speed and memory compare.

Exit code 1 says that a runner failed, or that the losses of the first step differ: then the work
was not the same, and the ratios mean nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol import MICRO_BATCH_SIZE
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OURS = "exp"
FIRST_LOSS_TOLERANCE = 0.01
"""Relative. The first step's loss is the bare base model's; bf16 alone moves it by some 0.002."""


@dataclass(frozen=True, slots=True)
class Runner:
    """How one of the compared programs is started."""

    script: Path
    python: Path
    model: Path


@dataclass(slots=True)
class Results:
    """What a runner reported on one variant, a value a round."""

    framework: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def add(self, measured: dict[str, Any], warmup: int) -> None:
        steady = measured["examples_per_second"][warmup:]
        self.framework = measured["framework"]
        self.rounds.append(measured)
        self.rates.append(statistics.harmonic_mean(steady))  # = examples / seconds
        self.peaks.append(measured["peak_rss_bytes"])

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def peak(self) -> float:
        return statistics.median(self.peaks)

    @property
    def first_loss(self) -> float:
        loss: float = self.rounds[0]["losses"][0]
        return loss


def main() -> None:
    options = parse_arguments()
    runners = {
        "trl": Runner(HERE / "run_trl.py", HERE / ".venv-trl/bin/python", options.work / "model"),
        "litgpt": Runner(
            HERE / "run_litgpt.py",
            HERE / ".venv-litgpt/bin/python",
            options.work / "litgpt/SmolLM2-135M-Instruct",
        ),
        OURS: Runner(HERE / "run_exp.py", Path(sys.executable), options.work / "model"),
    }
    chosen = {name: runners[name] for name in [*options.peers, OURS]}
    console = Console()
    outcome: dict[str, dict[str, Results]] = {}
    for variant in options.variants:
        outcome[variant] = measure(variant, chosen, options, console)
        console.print(table_of(variant, outcome[variant]))
    options.output.write_text(json.dumps(as_json(outcome, options), indent=2), encoding="utf-8")
    console.print(f"Every step of every round: {options.output}")
    differing = [v for v in outcome if not same_work(outcome[v])]
    if differing:
        sys.exit(
            f"The losses of the first step differ on {', '.join(differing)}: not the same work"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="what run.sh prepared")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each program")
    parser.add_argument("--warmup", type=int, default=2, help="first steps that are not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted steps of each process")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--peers", nargs="*", default=["trl", "litgpt"], choices=["trl", "litgpt"])
    parser.add_argument(
        "--variants",
        nargs="+",
        default=["instruction", "empty"],
        choices=["instruction", "empty"],
        help="with the task's instruction, or without one",
    )
    parser.add_argument("--output", type=Path, default=HERE / ".work/result.json")
    return parser.parse_args()


def measure(
    variant: str, runners: dict[str, Runner], options: argparse.Namespace, console: Console
) -> dict[str, Results]:
    """Run every program once a round, each in a process of its own."""
    results = {name: Results() for name in runners}
    for turn in range(options.rounds):
        for name, runner in runners.items():
            started = time.perf_counter()
            measured = run(runner, variant, options.warmup + options.steps, options)
            results[name].add(measured, options.warmup)
            console.print(
                f"{variant}, round {turn + 1} of {options.rounds}: {measured['framework']} "
                f"{results[name].rates[-1]:.2f} examples/s "
                f"({time.perf_counter() - started:.0f} s with start)",
                highlight=False,
            )
    return results


def run(runner: Runner, variant: str, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Start a runner, wait for it, and return what it reports."""
    with tempfile.TemporaryDirectory() as scratch:
        command = {
            "--ids": options.work / f"ids-{variant}.json",
            "--model": runner.model,
            "--steps": steps,
            "--threads": options.threads,
            "--scratch": scratch,
        }
        done = subprocess.run(
            [
                runner.python,
                runner.script,
                *(str(part) for pair in command.items() for part in pair),
            ],
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(options.threads),
                "CUDA_VISIBLE_DEVICES": "",
                "TOKENIZERS_PARALLELISM": "false",
            },
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        sys.exit(f"{runner.script.name} failed with exit code {done.returncode}:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def same_work(results: dict[str, Results]) -> bool:
    """Say whether all programs start from the same loss on the same first micro-batch."""
    ours = results[OURS].first_loss
    return all(
        abs(other.first_loss - ours) <= FIRST_LOSS_TOLERANCE * ours for other in results.values()
    )


def table_of(variant: str, results: dict[str, Results]) -> Table:
    table = Table(
        title=f"{variant}: micro-batch {MICRO_BATCH_SIZE}, bf16, CPU; medians and ranges",
        caption="speed, memory: of exp, divided by the row's",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for header in ("", "examples/s", "range", "peak RSS", "loss 1", "speed", "memory"):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    ours = results[OURS]
    for row in results.values():
        table.add_row(
            row.framework,
            f"{row.rate:.2f}",
            f"{min(row.rates):.2f}-{max(row.rates):.2f}",
            f"{row.peak / 2**30:.2f} GiB",
            f"{row.first_loss:.4f}",
            f"{ours.rate / row.rate:.2f} x",
            f"{ours.peak / row.peak:.2f} x",
        )
    return table


def as_json(outcome: dict[str, dict[str, Results]], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "micro_batch_size": MICRO_BATCH_SIZE,
        "threads": options.threads,
        "warmup_steps": options.warmup,
        "variants": {
            variant: {
                name: {
                    "framework": row.framework,
                    "examples_per_second": row.rate,
                    "examples_per_second_range": [min(row.rates), max(row.rates)],
                    "peak_rss_bytes": row.peak,
                    "ratio_examples_per_second": results[OURS].rate / row.rate,
                    "ratio_peak_rss": results[OURS].peak / row.peak,
                    "rounds": row.rounds,
                }
                for name, row in results.items()
            }
            for variant, results in outcome.items()
        },
    }


if __name__ == "__main__":
    main()
