"""Write docs/results/memory.md: predicted against measured peaks of training on a CPU.

Run from the checkout: `OMP_NUM_THREADS=1 python benchmarks/memory/table.py`.
"""

import platform
from pathlib import Path

import torch
import yaml

from exp.config.schema import Precision
from exp.training.benchmark.memory_table import LENGTHS, SHAPES, Cell, Outcome, cells, compare

CHECKOUT = Path(__file__).parents[2]
TARGET = CHECKOUT / "docs" / "results" / "memory.md"
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/memory/table.py"
MIB = 2**20

TEXT = """# Memory: predicted against measured

The peak of two training steps, in MiB: what `hardware/memory` predicts from the model's config and
the lengths, and what torch's allocator handed out, to the byte. Random weights, LoRA r=16 on all
linear layers, AdamW, shared prefix, CPU, torch {torch}, {python}. A length reads: examples of a
forward x (shared + own prompt + completion tokens); "2 times" is a step of two forwards.

The measurement is the profiler's record of every allocation and release of torch's allocator,
those inside of kernels included, from before the model is loaded. Resident memory would not do: it
holds what libraries and the C allocator keep, and lacks what was never touched. The formulas follow
the code and have no fitted constants; what is left is scratch memory inside of kernels.

Largest error: {largest:.1%}. Made by `{command}`.

| model | type | length | checkpointing | predicted | measured | error | peak in |
|---|---|---|---|---:|---:|---:|---|
{rows}

Not measured yet: CUDA devices (allocated and reserved), quantised bases, the validation phase.
"""


def main() -> None:
    """Measure every cell and write the page."""
    architecture = yaml.safe_load(
        (CHECKOUT / "conf" / "model" / "smollm2_135m.yaml").read_text(encoding="utf-8")
    )["architecture"]
    models = [("SmolLM2-135M", architecture, Precision.bf16), *SHAPES]
    measured = []
    for cell in cells(models, LENGTHS):
        outcome = compare(cell)
        print(_row(cell, outcome), flush=True)
        measured.append((cell, outcome))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(
        TEXT.format(
            torch=torch.__version__.split("+")[0],
            python=f"Python {platform.python_version()}",
            largest=max(abs(outcome.error) for _, outcome in measured),
            command=COMMAND,
            rows="\n".join(_row(cell, outcome) for cell, outcome in measured),
        ),
        encoding="utf-8",
    )


def _row(cell: Cell, outcome: Outcome) -> str:
    return (
        f"| {cell.model} | {cell.precision.name} | {cell.lengths} "
        f"| {'yes' if cell.checkpointing else 'no'} | {outcome.predicted / MIB:.2f} "
        f"| {outcome.measured / MIB:.2f} | {outcome.error:+.1%} | {outcome.place} |"
    )


if __name__ == "__main__":
    main()
