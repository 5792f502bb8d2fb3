"""Scores that add up over batches and processes, for the training loop.

The only module here that needs torch: all else scores without it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jsonschema.protocols import Validator
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from exp.config.schema import OutputFormat
from exp.data.output import compile_schema
from exp.metrics.metric import row_statistics
from exp.metrics.row import match_rows, score_row
from exp.metrics.table import METRICS
from exp.records import Example, Prediction


class RunningScores(TorchMetric):
    """The scores of `score_predictions`, without intervals, from batches.

    Each metric keeps the sums of its rows' numbers; processes add theirs up. A row that is given
    twice counts twice, so a sampler must not repeat rows to fill a batch.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    def __init__(self, output_format: OutputFormat, schema: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.output_format = output_format
        self.validator: Validator | None = None if schema is None else compile_schema(schema)
        self.metrics = {
            name: metric
            for name, metric in METRICS.items()
            if metric.applies(output_format, schema is not None)
        }
        for name, metric in self.metrics.items():
            zeros = torch.zeros(metric.num_statistics, dtype=torch.float64)
            self.add_state(f"{name}_sums", default=zeros, dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Prediction], references: Sequence[Example]) -> None:
        """Add rows; predictions and references are paired by id within the call."""
        pairs = match_rows(predictions, references)
        rows = [
            score_row(one, example, self.output_format, self.validator) for one, example in pairs
        ]
        for name, metric in self.metrics.items():
            sums: Tensor = getattr(self, f"{name}_sums")
            sums += torch.from_numpy(row_statistics(metric, rows).sum(axis=0)).to(sums.device)

    def compute(self) -> dict[str, Tensor]:
        """The scores so far by name, each a scalar."""
        return {
            name: torch.tensor(
                float(metric.value(getattr(self, f"{name}_sums").cpu().numpy())),
                dtype=torch.float64,
            )
            for name, metric in self.metrics.items()
        }
