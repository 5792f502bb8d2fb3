"""`exp predict`: completions for a file of inputs, written as they were asked for."""

import sys
from contextlib import nullcontext

from rich.console import Console

from exp.commands.inference import only_config, open_subject
from exp.commands.prediction_file import check_columns, check_output, write_predictions
from exp.config.resolve import Resolved
from exp.config.schema import PredictConfig
from exp.data.sources.load import load_rows
from exp.generation.cache.store import PredictionCache
from exp.report.console import print_table
from exp.report.progress import progress


def run(resolved: Resolved) -> int:
    """Predict every row of the input and write the output, in the input's order."""
    config: PredictConfig = only_config(resolved)
    check_output(config.output, config.input)
    rows = load_rows(
        config.input,
        config.task.fields,
        require_output=False,
        output_format=config.task.output_format,
    )
    examples = rows if config.limit is None else rows[: config.limit]
    check_columns(examples, config.input)
    with PredictionCache.from_config(config.cache) or nullcontext() as cache:
        subject = open_subject(config, cache, ())
        with progress("predicting", len(examples)) as advance:
            predictions = subject.predictor.predict(
                examples, advance.behind(subject.load_model), advance
            )
    summary = write_predictions(
        config.output, examples, predictions, subject.foundation.task, config.task.fields
    )
    print_table(("rows", "count"), summary, console=Console(file=sys.stderr))
    return 0
