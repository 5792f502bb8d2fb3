"""Measure one rung in a process of its own: load, warm up, decode the rows by the clock."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from exp.config.schema import Accelerator, Layout, ModelConfig
from exp.errors import UserError
from exp.generation.benchmark.ladder import Rung
from exp.generation.cache.key import Request
from exp.generation.constraint import Constraint
from exp.generation.drafting import open_drafter
from exp.generation.engine import Engine
from exp.generation.reference import generate_with_transformers
from exp.generation.row import Completion
from exp.generation.settings import GenerationSettings
from exp.hardware.process import apply_to_process
from exp.hardware.resolver import ResolvedHardware
from exp.model.base import Storage, load_base
from exp.model.forward import choose_layout
from exp.model.lora import load_lora
from exp.model.merge import merge_for_good
from exp.model.source import ModelFiles
from exp.training.benchmark.memory import mark_memory
from exp.training.benchmark.rotation import NotMeasured

WARM_UP_ROWS = 2


@dataclass(frozen=True)
class Job:
    """What all rungs share.

    Attributes:
        model: The base.
        files: Its files.
        hardware: What the machine was found to do.
        seed: Of random weights.
        adapter: Folder of the adapter; None for the base alone.
        settings: Greedy, with token limit, slots and template; a rung adds the constraint.
        prompts: Token ids of the rows.
        tokenizer: The model's.
        schema: The task's; None without one.
    """

    model: ModelConfig
    files: ModelFiles
    hardware: ResolvedHardware
    seed: int
    adapter: Path | None
    settings: GenerationSettings
    prompts: Sequence[tuple[int, ...]]
    tokenizer: Tokenizer
    schema: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One rung in one repetition.

    Attributes:
        seconds: Time of decoding, from the first row to the last.
        peak_bytes: Peak memory, from before the model was loaded; None where it is not known.
        completions: By row number.
    """

    seconds: float
    peak_bytes: int | None
    completions: dict[int, Completion]


def measure_rung(job: Job, rung: Rung) -> Measurement | NotMeasured:
    """Load the model, decode the rung's rows as it says, measure that.

    To be called in a fresh process, or what others left behind is measured with it.
    """
    disable_progress_bar()
    apply_to_process(job.hardware)
    try:
        return _measure(job, rung)
    except torch.OutOfMemoryError:
        return NotMeasured("out of memory")
    except UserError as error:
        return NotMeasured(error.what)


def _measure(job: Job, rung: Rung) -> Measurement | NotMeasured:
    if rung.constrained and job.schema is None:
        return NotMeasured("the task has no schema")
    device = "cpu" if job.hardware.accelerator is Accelerator.cpu else "cuda"
    mark = mark_memory(device)
    storage = Storage(job.hardware.quantization, "cpu" if device == "cpu" else "cuda:0")
    model = load_base(job.model, job.files, job.hardware.precision, job.seed, storage)
    if job.adapter is not None:
        adapted = load_lora(model, job.adapter)
        if rung.merged:
            merge_for_good(adapted)
    model.eval()
    longest = max(map(len, job.prompts)) + job.settings.max_new_tokens
    choice = choose_layout(model, Layout.shared_prefix, longest)
    if rung.engine and choice.reason is not None:
        return NotMeasured(choice.reason)
    rows = rows_of(rung, len(job.prompts))
    _decode(job, rung, model, rows[:WARM_UP_ROWS])
    _wait()
    started = time.perf_counter()
    completions = _decode(job, rung, model, rows)
    _wait()
    return Measurement(time.perf_counter() - started, mark.peak_bytes(), completions)


def rows_of(rung: Rung, number: int) -> list[int]:
    """Row numbers that a rung decodes: spread evenly, at least one."""
    count = max(1, round(rung.row_share * number))
    return [index * number // count for index in range(count)]


def _decode(
    job: Job, rung: Rung, model: PreTrainedModel, rows: Sequence[int]
) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    settings = job.settings

    def keep(place: int, completion: Completion) -> None:
        found[rows[place]] = completion

    prompts = [job.prompts[row] for row in rows]
    if not rung.engine:
        generate_with_transformers(
            model,
            [Request(str(row), prompt) for row, prompt in zip(rows, prompts, strict=True)],
            replace(settings, num_slots=rung.batch_size),
            keep,
            key_value_cache=rung.key_value_cache,
        )
        return found
    constraint = None
    if rung.constrained:
        assert job.schema is not None
        constraint = Constraint(job.schema, job.tokenizer, settings.stop_ids)
    Engine(
        model,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=settings.stop_ids,
        num_slots=settings.num_slots,
        drafter=open_drafter(settings) if rung.drafting else None,
        constraint=constraint,
        share_prefix=rung.share_prefix,
        refill=rung.refill,
    ).generate(prompts, keep)
    return found


def _wait() -> None:
    """Wait until everything that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
