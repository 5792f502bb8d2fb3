"""From measurements to the figures of a table: medians, ranges, agreement with the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exp.generation.benchmark.ladder import Rung
from exp.generation.benchmark.measure import Measurement
from exp.generation.row import Completion
from exp.training.benchmark.spread import Spread, spread


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one rung.

    Attributes:
        num_rows: Rows that it decoded.
        rows_per_second: Rows decoded.
        tokens_per_second: Tokens of completions.
        peak_bytes: Peak memory; None where the system does not say.
        num_cut: Rows that reached the token limit.
        same: Share of its rows whose token ids are those of the reference, of rows that both have;
            below fp32, roundings decide near ties.
    """

    rung: Rung
    num_rows: int
    rows_per_second: Spread
    tokens_per_second: Spread
    peak_bytes: Spread | None
    num_cut: int
    same: float | None


def summarise(measured: Mapping[Rung, Sequence[Measurement]], reference: str) -> list[Summary]:
    """Summarise the rungs; `reference` names the one whose token ids the others are held to."""
    expected: dict[int, Completion] = next(
        (done[0].completions for rung, done in measured.items() if rung.name == reference), {}
    )
    return [_summarise(rung, done, expected) for rung, done in measured.items()]


def _summarise(rung: Rung, done: Sequence[Measurement], expected: dict[int, Completion]) -> Summary:
    completions = done[0].completions
    tokens = sum(len(one.token_ids) for one in completions.values())
    peaks = [one.peak_bytes for one in done if one.peak_bytes is not None]
    both = completions.keys() & expected.keys()
    return Summary(
        rung=rung,
        num_rows=len(completions),
        rows_per_second=spread([len(completions) / one.seconds for one in done]),
        tokens_per_second=spread([tokens / one.seconds for one in done]),
        peak_bytes=spread(peaks) if peaks else None,
        num_cut=sum(one.finish_reason == "length" for one in completions.values()),
        same=sum(completions[row] == expected[row] for row in both) / len(both) if both else None,
    )
