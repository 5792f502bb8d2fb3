"""Two processes, of which one runs out of memory: both repeat the step, or both give up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two processes need a core each"
)

SETTINGS = (
    "experiment=smoke",
    "hardware.cpu_threads=1",
    "hardware.precision=fp32",
    "hardware.devices=2",
    "data.limit=23",
    "training.epochs=9",
    "training.steps=4",
    "training.batch_size=7",
    "training.evaluate_base=false",
    "training.validation_limit=2",
    "generation.max_new_tokens=2",
    "name=run",
)

SCRIPT = """
import os
import sys
import torch
from exp.cli import main
from exp.training.module import LoraModule

backward = LoraModule._backward
happened = []

def failing(self, micro_batch, batch, index):
    chosen = self.global_rank == 1 and batch.step.number == 2 and index == 0
    if chosen and not happened:
        happened.append(index)
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return backward(self, micro_batch, batch, index)

if os.environ.get("FAIL") == "1":
    LoraModule._backward = failing
raise SystemExit(main())
"""


def train(folder: Path, fails: bool, micro_batch_size: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    arguments = [*SETTINGS, f"training.micro_batch_size={micro_batch_size}"]
    return subprocess.run(
        [sys.executable, str(script), "train", *arguments, f"output_dir={folder / 'out'}"],
        env={**os.environ, "FAIL": str(int(fails))},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@needs_two_cores
def test_both_processes_repeat_the_step_that_one_could_not_finish(tmp_path: Path) -> None:
    adapters = []
    for fails in (False, True):
        folder = tmp_path / str(fails)
        done = train(folder, fails, 2)
        assert done.returncode == 0, done.stderr
        assert ("step 3 did not fit into memory" in done.stdout + done.stderr) == fails
        checkpoint = folder / "out" / "run" / "checkpoints" / "step_000004"
        adapters.append(load_file(checkpoint / "adapter_model.safetensors"))
    calm, recovered = adapters
    assert max(float((calm[n] - recovered[n]).abs().max()) for n in calm) <= 1e-6


@pytest.mark.slow
@needs_two_cores
def test_both_processes_give_up_where_a_single_example_does_not_fit(tmp_path: Path) -> None:
    done = train(tmp_path / "hopeless", True, 1)
    assert done.returncode == 2
    assert "does not fit into memory" in done.stderr
