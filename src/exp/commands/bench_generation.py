"""`exp bench generation`: the ladder from one row at a time to this engine, measured in turns."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from exp.commands.foundation import lay_foundation
from exp.commands.inference import only_config
from exp.commands.prediction import generation_settings
from exp.commands.subset import subset
from exp.config.plain import to_plain
from exp.config.resolve import Resolved
from exp.config.schema import BenchConfig, Constrain, Strategy
from exp.errors import ConfigError
from exp.generation.benchmark.ladder import LADDER, Rung
from exp.generation.benchmark.measure import Job, Measurement, measure_rung
from exp.generation.benchmark.summary import Summary, summarise
from exp.publish import write_atomically
from exp.report.console import print_next_steps, print_table
from exp.rundir import create_run_dir, open_run_dir
from exp.training.benchmark.rotation import NotMeasured, take_turns
from exp.training.benchmark.spread import Spread
from exp.training.checkpoint import find_checkpoint

MIB = 2**20
ROWS = 64
"""Rows where no limit is set: enough for several fillings of the slots."""

TOKENS = 48
"""Token limit where neither the settings nor a run give one."""

COLUMNS = ("rung", "rows", "rows/s", "tokens/s", "peak memory MiB", "cut", "same ids")

log = logging.getLogger(__name__)


def run(resolved: Resolved) -> int:
    """Measure all rungs; write table and JSON."""
    config: BenchConfig = only_config(resolved)
    job = _job(config)
    measured, not_measured = take_turns(measure_rung, job, LADDER, config.bench.repetitions, _show)
    # In a run the unmerged rungs round differently; the strongest baseline is the reference.
    summaries = summarise(measured, reference="merged")
    title = (
        f"{config.model.name}, {job.hardware.precision.name} on {job.hardware.device_name}; "
        f"{config.task.name}, {len(job.prompts)} rows, {job.settings.num_slots} slots"
    )
    cells = [_cells(summary) for summary in summaries]
    print_table(COLUMNS, cells, title=title, right=range(1, len(COLUMNS)))
    if not_measured:
        skipped = [(rung.title, reason) for rung, reason in not_measured.items()]
        print_table(("not measured", "because"), skipped)
    folder = create_run_dir(Path(config.output_dir or "outputs/bench"), None).path
    content = {
        "what": config.what.name,
        "title": title,
        "config": to_plain(config),
        "rungs": [asdict(summary) for summary in summaries],
        "seconds": {rung.name: [one.seconds for one in done] for rung, done in measured.items()},
        "not_measured": {rung.name: reason for rung, reason in not_measured.items()},
    }
    write_atomically(folder / "generation.json", json.dumps(content, indent=2) + "\n")
    print_next_steps([f"figures: {folder / 'generation.json'}"])
    return 0


def _job(config: BenchConfig) -> Job:
    generation = config.generation
    if generation.strategy is not Strategy.greedy:
        raise ConfigError(
            f"Only greedy decoding is measured, not strategy={generation.strategy.name}.",
            where="generation.strategy",
            fix="generation=greedy",
        )
    foundation = lay_foundation(config, (config.split,))
    run_dir = None if config.run is None else open_run_dir(config.run)
    adapter = None if run_dir is None else find_checkpoint(run_dir, config.checkpoint)
    limit = generation.max_new_tokens or TOKENS
    # The ladder's last rung adds the schema by itself.
    greedy = replace(generation, max_new_tokens=limit, constrain=Constrain.none, drafting=True)
    rows = subset(foundation.task.split(config.split), config.limit or ROWS, config.seed)
    return Job(
        model=config.model,
        files=foundation.files,
        hardware=foundation.hardware,
        seed=config.seed,
        adapter=adapter,
        settings=generation_settings(foundation, replace(config, generation=greedy), run_dir),
        prompts=foundation.renderer.render_prompts([row.input for row in rows]),
        tokenizer=foundation.renderer.tokenizer,
        schema=foundation.renderer.writing.grammar,
    )


def _cells(summary: Summary) -> tuple[str, ...]:
    peak = summary.peak_bytes
    return (
        summary.rung.title,
        str(summary.num_rows),
        _words(summary.rows_per_second),
        _words(summary.tokens_per_second),
        "-" if peak is None else _words(peak, 1 / MIB),
        str(summary.num_cut),
        "-" if summary.same is None else f"{summary.same:.0%}",
    )


def _words(figure: Spread, factor: float = 1.0) -> str:
    low, high = figure.low * factor, figure.high * factor
    return f"{figure.median * factor:,.3g} ({low:,.3g} to {high:,.3g})"


def _show(repetition: int, rung: Rung, outcome: Measurement | NotMeasured) -> None:
    result: Any = (
        f"not measured: {outcome.reason}"
        if isinstance(outcome, NotMeasured)
        else f"{len(outcome.completions) / outcome.seconds:.3g} rows/s"
    )
    log.info("repetition %d, %s: %s", repetition + 1, rung.title, result)
