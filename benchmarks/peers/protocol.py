"""What all runners have in common: their arguments, the rows they read, the line they print.

The runners live in environments of their own, so this module needs the standard library alone.
"""

import argparse
import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

MICRO_BATCH_SIZE = 8
LORA_R = 16
LORA_ALPHA = 32
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one example; the completion alone carries loss."""

    prompt_ids: list[int]
    completion_ids: list[int]

    @property
    def input_ids(self) -> list[int]:
        return self.prompt_ids + self.completion_ids

    @property
    def labels(self) -> list[int]:
        """The ids of the completion, and -100 at every token of the prompt."""
        return [-100] * len(self.prompt_ids) + self.completion_ids


@dataclass(frozen=True, slots=True)
class Work:
    """What a runner is asked to do.

    Attributes:
        rows: Micro-batch i consists of rows 8 i to 8 i + 7, for every runner.
        model: Folder with the base model, as the runner's framework wants it.
        steps: Optimizer steps, one micro-batch each, warm-up included.
        threads: Threads that PyTorch may use.
        scratch: An empty folder for whatever a framework insists on writing.
    """

    rows: list[Row]
    model: Path
    steps: int
    threads: int
    scratch: Path


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a runner reports.

    Attributes:
        framework: Names and versions.
        losses: Mean cross-entropy over the labels of each step, in nats.
        examples_per_second: Rate of each step, batch preparation and update included.
        peak_rss_bytes: Largest resident set of the process, from its start to its last step.
    """

    framework: str
    losses: list[float]
    examples_per_second: list[float]
    peak_rss_bytes: int


def read_work() -> Work:
    """Parse the command line of a runner and load its rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ids", type=Path, required=True, help="file written by prepare.py")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps")
    parser.add_argument("--threads", type=int, required=True, help="threads of PyTorch")
    parser.add_argument("--scratch", type=Path, required=True, help="folder that may be written to")
    options = parser.parse_args()
    wanted = options.steps * MICRO_BATCH_SIZE
    rows = [Row(**row) for row in json.loads(options.ids.read_text(encoding="utf-8"))][:wanted]
    if len(rows) < wanted:
        sys.exit(f"{options.steps} steps need {wanted} rows, but {options.ids} has {len(rows)}")
    return Work(rows, options.model, options.steps, options.threads, options.scratch)


def peak_rss_bytes() -> int:
    """Return the largest resident set that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rates(step_seconds: list[float]) -> list[float]:
    """Turn the duration of each step into examples per second."""
    return [MICRO_BATCH_SIZE / seconds for seconds in step_seconds]


def report(measurement: Measurement) -> None:
    """Print the result as the last line of standard output."""
    print(json.dumps(asdict(measurement)), flush=True)
