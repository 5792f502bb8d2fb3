"""The trials of the ablation: which arms on which data, and the command line of each."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exp.rundir import RunDir

SEEDS = (0, 1, 2)
SHARED = "experiment=ablation"
WORKER = "hardware.cpu_threads=1"
VIGGO = "path/to/viggo"
"""Stands for the folder with ViGGO's rows, which are not part of this repository."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is changed of `experiment=ablation`, and the gain that is claimed for it."""

    name: str
    change: str
    overrides: tuple[str, ...] = ()
    claim: str = ""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training rows; `rows` is how many there are."""

    name: str
    title: str
    rows: int
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One training."""

    data: DataSet
    arm: Arm
    seed: int

    @property
    def folder(self) -> Path:
        """Where its runs are, below the ablation's folder."""
        return Path(self.data.name) / self.arm.name / f"seed{self.seed}"

    def arguments(self, viggo: str = VIGGO) -> tuple[str, ...]:
        """The words behind `exp train` that make this trial what it is.

        Args:
            viggo: Folder with train.jsonl, validation.jsonl and test.jsonl.
        """
        data = (word.replace(VIGGO, viggo) for word in self.data.overrides)
        return (SHARED, *data, *self.arm.overrides, f"seed={self.seed}", WORKER)


BASELINE = Arm("baseline", "r 8 on q, v; linear, no warmup; loss on all text; no augmentation")
FACTORS = (
    Arm(
        "augmentation", "half of the examples are variants", ("augmentation=standard",), "10 to 15%"
    ),
    Arm("lora", "r 16 on q, k, v, o, dropout 0.05", ("lora=standard",), "3 to 5%"),
    Arm("loss", "loss on completions alone", ("training.loss=completion",), "2 to 3%"),
    Arm(
        "scheduler",
        "cosine with 10% warmup",
        ("scheduler=cosine", "scheduler.warmup_fraction=0.1"),
        "1 to 2%",
    ),
)
ALL = Arm("all", "the four together", tuple(word for arm in FACTORS for word in arm.overrides))
ARMS = (BASELINE, *FACTORS, ALL)

DATA_SETS = (
    DataSet("orders_es_1500", "orders_es, 1,500 rows", 1500),
    DataSet("orders_es_300", "orders_es, 300 rows", 300, ("data.limit=300",)),
    DataSet("orders_es_100", "orders_es, 100 rows", 100, ("data.limit=100",)),
    DataSet(
        "viggo",
        "ViGGO, 5,103 rows",
        5103,
        (
            "task=jsonl",
            "task.name=viggo",
            *(f"task.{split}={VIGGO}/{split}.jsonl" for split in ("train", "validation", "test")),
            "task.fields.input=text",
            "task.fields.output=target",
            "task.instruction_file=benchmarks/ablation/viggo_instruction.txt",
            "task.language=en",
        ),
    ),
)


def all_trials() -> Iterator[Trial]:
    """Yield every trial, a whole round of all arms and data sets before the next seed."""
    for seed in SEEDS:
        for data in DATA_SETS:
            for arm in ARMS:
                yield Trial(data, arm, seed)


def finished_run(folder: Path) -> RunDir | None:
    """Return the first run in a trial's folder that was trained and scored to its end."""
    for record in sorted(folder.glob("*/run.json")):
        if json.loads(record.read_text(encoding="utf-8"))["status"] == "completed":
            return RunDir(record.parent)
    return None
