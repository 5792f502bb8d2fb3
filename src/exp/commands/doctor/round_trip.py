"""A tiny train -> save -> load -> generate, by the commands that a user types."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from exp.config.groups import open_library
from exp.config.preflight import preflight
from exp.config.quoting import quoted
from exp.config.resolve import Resolved
from exp.config.schema import DoctorConfig, TrainConfig
from exp.config.section import close
from exp.errors import ModelError
from exp.rundir import RunDir

STEPS = 2
NUM_ROWS = {"train": 8, "validation": 2, "test": 4}


def make_round_trip(config: DoctorConfig) -> str:
    """Train two random layers as asked, and have the saved adapter predict as the live one did.

    On one device: further processes would be started by repeating this command.

    Raises:
        UserError: A step of the way cannot be done.
    """
    with tempfile.TemporaryDirectory(prefix="exp-round-trip-") as name:
        folder = Path(name)
        os.environ["EXP_CACHE_DIR"] = str(folder / "cache")
        run = RunDir(folder / "run")
        _train(config, folder)
        live = _predictions(run)
        _evaluate(config, run)
        loaded = _predictions(run)
        if live != loaded:
            different = sum(live[key] != loaded[key] for key in live)
            raise ModelError(
                f"{different} of {len(live)} predictions of the saved adapter differ from those of "
                "the trained one.",
                fix="report it with the output of exp doctor",
            )
        adapter = next(run.checkpoints.glob("step_*/adapter_model.safetensors"))
        kib = adapter.stat().st_size / 1024
    hardware = "" if config.hardware.devices == 1 else ", on one device"
    return (
        f"{STEPS} steps of two random layers, adapter of {kib:.0f} KiB saved and loaded, "
        f"{len(live)} predictions alike{hardware}"
    )


def _train(config: DoctorConfig, folder: Path) -> None:
    from exp.commands import train

    arguments = [
        *("model=tiny", "task=jsonl", "task.name=doctor", "task.instruction=Write it as JSON."),
        *(f"task.{split}={quoted(str(_write_rows(folder, split)))}" for split in NUM_ROWS),
        *("generation.max_new_tokens=4", f"output_dir={quoted(str(folder))}", "name=run"),
    ]
    (trial,) = preflight("train", arguments, open_library()).trials
    asked: TrainConfig = replace(
        trial.config,
        hardware=replace(config.hardware, devices=1),
        quantization=config.quantization,
        optimizer=config.optimizer,
        training=replace(
            config.training,
            epochs=1.0,
            steps=STEPS,
            minutes=None,
            batch_size=4,
            micro_batch_size=2,
            validate_every=1.0,
            validation_limit=None,
            test_limit=None,
            patience=None,
            log_every_steps=1,
            keep_checkpoints=1,
            evaluate_base=False,
            base_limit=None,
            resume=None,
        ),
    )
    close(asked)
    _succeed(train.run(Resolved("train", asked)), "training")


def _evaluate(config: DoctorConfig, run: RunDir) -> None:
    from exp.commands import evaluate

    # Without the cache, which would give the predictions of the training back.
    arguments = [f"run={quoted(str(run.path))}", "cache.enabled=false"]
    (trial,) = preflight("evaluate", arguments, open_library()).trials
    asked = replace(trial.config, hardware=replace(config.hardware, devices=1))
    close(asked)
    _succeed(evaluate.run(Resolved("evaluate", asked, configs=(asked,))), "evaluation")


def _succeed(exit_code: int, what: str) -> None:
    if exit_code != 0:
        raise ModelError(f"The {what} ended with exit code {exit_code}.")


def _write_rows(folder: Path, split: str) -> Path:
    rows: list[dict[str, Any]] = [
        {"id": f"{split}-{i}", "input": f"{i} nails, please", "output": {"quantity": i}}
        for i in range(NUM_ROWS[split])
    ]
    path = folder / f"{split}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _predictions(run: RunDir) -> dict[str, str]:
    lines = run.predictions("test").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["prediction"] for row in map(json.loads, lines)}
