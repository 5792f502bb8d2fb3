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
    "data.limit=23",
    "training.epochs=9",
    "training.steps=10",
    "training.batch_size=7",
    "training.micro_batch_size=3",
    "training.evaluate_base=false",
    "training.validation_limit=2",
    "generation.max_new_tokens=2",
    "name=run",
)


@pytest.mark.slow
@needs_two_cores
def test_two_processes_train_the_adapter_that_one_trains(tmp_path: Path) -> None:
    """Of a step of seven, one process has two micro-batches and the other has one."""
    adapters = []
    for devices in (1, 2):
        output = tmp_path / str(devices)
        arguments = [*SETTINGS, f"hardware.devices={devices}", f"output_dir={output}"]
        subprocess.run([sys.executable, "-m", "exp", "train", *arguments], check=True, timeout=600)
        checkpoint = output / "run" / "checkpoints" / "step_000010"
        adapters.append(load_file(checkpoint / "adapter_model.safetensors"))
    one, two = adapters
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-6
    assert all(bool((tensor != 0).any()) for name, tensor in one.items() if "lora_B" in name)
