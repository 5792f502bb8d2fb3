"""`exp bench training`: the ladder from plain training to this project's, measured in turns."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from exp.commands.foundation import Foundation, lay_foundation
from exp.commands.inference import only_config
from exp.commands.leaderboard import shown
from exp.config.plain import to_plain
from exp.config.resolve import Resolved
from exp.config.schema import (
    BenchConfig,
    MeasurementConfig,
    Schedule,
    SchedulerConfig,
    TrainConfig,
    TrainingConfig,
)
from exp.data.selection import select_rows
from exp.data.tokens import TokenStore, tokenise
from exp.publish import write_atomically
from exp.report.benchmark.ladder import ladder_json, print_ladder
from exp.report.benchmark.plot import plot_ladder
from exp.report.console import print_next_steps
from exp.rundir import create_run_dir
from exp.training.benchmark.ladder import LADDER, Rung
from exp.training.benchmark.measure import Job, Measurement
from exp.training.benchmark.rotation import NotMeasured
from exp.training.benchmark.spread import spread
from exp.training.benchmark.summary import disagreements, summarise
from exp.training.benchmark.turns import measure_in_turns
from exp.training.benchmark.workload import sample_rows, synthetic_rows

PROMPT_TOKENS, INPUT_TOKENS, COMPLETION_TOKENS = 200, 60, 40

log = logging.getLogger(__name__)


def run(resolved: Resolved) -> int:
    """Measure all rungs; write table, plot and JSON; 1 if the rungs do not compute the same."""
    config: BenchConfig = only_config(resolved)
    synthetic = _is_synthetic(config.bench)
    foundation = lay_foundation(config, () if synthetic else ("train",))
    store = _synthetic(foundation, config) if synthetic else _sampled(foundation, config)
    # Ranks would share the steps; the ladder is about one device.
    hardware = replace(foundation.hardware, devices=1)
    job = Job(_train_config(config), foundation.files, hardware, store, config.bench.warmup_steps)
    turns = measure_in_turns(job, LADDER, config.bench.repetitions, _show)
    summaries = summarise(turns, LADDER)
    workload = _describe(store, synthetic, config)
    title = (
        f"{config.model.name}, {hardware.precision.name} on {hardware.device_name}; {workload}; "
        f"GEMM peak {spread(turns.gemm_peaks).median / 1e9:,.0f} GFLOP/s"
    )
    print_ladder(summaries, turns.not_measured, title)
    different = disagreements(summaries, hardware.precision, of_text=not synthetic)
    parent = Path(config.output_dir or "outputs/bench").expanduser().resolve()
    folder = create_run_dir(parent, None).path
    content = {
        "what": config.what.name,
        "title": title,
        "disagreements": different,
        "config": to_plain(config),
        **ladder_json(summaries, turns),
    }
    write_atomically(folder / "training.json", json.dumps(content, indent=2) + "\n")
    if summaries:
        plot_ladder(summaries, title, [folder / "training.svg", folder / "training.png"])
    print_next_steps([f"figures and plot: {shown(folder)}"])
    if different:
        log.error("The rungs do not compute the same:\n  %s", "\n  ".join(different))
        return 1
    log.info("all rungs agree on the first step")
    return 0


def _is_synthetic(bench: MeasurementConfig) -> bool:
    lengths = (bench.prompt_tokens, bench.input_tokens, bench.completion_tokens)
    return any(length is not None for length in lengths)


def _num_examples(bench: MeasurementConfig) -> int:
    return (1 + bench.warmup_steps + bench.steps) * bench.batch_size


def _synthetic(foundation: Foundation, config: BenchConfig) -> TokenStore:
    bench, folder = config.bench, foundation.files.folder
    architecture = (
        AutoConfig.for_model(**config.model.architecture)
        if folder is None
        else AutoConfig.from_pretrained(folder, local_files_only=True)
    )
    return synthetic_rows(
        _num_examples(bench),
        PROMPT_TOKENS if bench.prompt_tokens is None else bench.prompt_tokens,
        bench.input_tokens or INPUT_TOKENS,
        bench.completion_tokens or COMPLETION_TOKENS,
        architecture.get_text_config().vocab_size,
        config.seed,
    )


def _sampled(foundation: Foundation, config: BenchConfig) -> TokenStore:
    examples = foundation.task.split("train")
    store = tokenise(examples, examples.content_key, foundation.renderer)
    chosen = select_rows(store, config.data, int(store.lengths.max(initial=0)), config.seed)
    store = replace(store, max_tokens=chosen.max_tokens)
    return sample_rows(store, chosen.rows.tolist(), _num_examples(config.bench), config.seed)


def _train_config(config: BenchConfig) -> TrainConfig:
    return TrainConfig(
        model=config.model,
        hardware=config.hardware,
        lora=config.lora,
        optimizer=config.optimizer,
        scheduler=SchedulerConfig(kind=Schedule.constant),
        training=TrainingConfig(
            batch_size=config.bench.batch_size, micro_batch_size=config.bench.micro_batch_size
        ),
        task=config.task,
        seed=config.seed,
    )


def _describe(store: TokenStore, synthetic: bool, config: BenchConfig) -> str:
    completion = store.completion_lengths.mean()
    shared = len(store.head_ids)
    own = store.lengths.mean() - shared - completion
    rows = "random token ids" if synthetic else config.task.name
    return (
        f"{rows}: {shared} shared + {own:.0f} own prompt tokens + {completion:.0f} of completion, "
        f"micro-batch {config.bench.micro_batch_size}"
    )


def _show(repetition: int, rung: Rung, outcome: Measurement | NotMeasured) -> None:
    result: Any = (
        f"not measured: {outcome.reason}"
        if isinstance(outcome, NotMeasured)
        else f"{outcome.examples / outcome.seconds:.3g} examples/s"
    )
    log.info("repetition %d, %s: %s", repetition + 1, rung.title, result)
