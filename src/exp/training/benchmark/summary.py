"""From measurements to the figures of a table: medians, ranges, ratios, agreement of the rungs."""

from collections.abc import Sequence
from dataclasses import dataclass

from exp.config.schema import Precision
from exp.training.benchmark.ladder import Rung
from exp.training.benchmark.measure import Measurement
from exp.training.benchmark.spread import Spread, spread
from exp.training.benchmark.turns import Turns

LOSS_TOLERANCE = {Precision.fp32: 1e-4, Precision.bf16: 1e-2, Precision.fp16: 1e-2}
"""Largest relative difference of two rungs' first losses; in 16 bits, rounding alone makes one."""
GRADIENT_TOLERANCE = {Precision.fp32: 1e-3, Precision.bf16: 5e-2, Precision.fp16: 5e-2}
"""The same for the norm of the first gradient, on text. On random token ids in 16 bits it is noise:
SmolLM2-135M gave 6 to 31 in bf16 where every rung gives 14.2758 in fp32."""


@dataclass(frozen=True, slots=True)
class RungSummary:
    """The figures of one rung.

    Attributes:
        examples_per_second: Examples trained on.
        tokens_per_second: Tokens of the examples' own; the shared head of the prompts not counted.
        useful_flops_per_second: See flops.py.
        share_of_peak: The same over the GEMM peak of the same repetition.
        ratio: Examples per second over those of the first rung in the same repetition; None if that
            one could not be measured.
        peak_bytes: Peak memory; None where the system does not say.
        loss: Of the first step, in nats a label.
        gradient_norm: Of the first step.
    """

    rung: Rung
    examples_per_second: Spread
    tokens_per_second: Spread
    useful_flops_per_second: Spread
    share_of_peak: Spread
    ratio: Spread | None
    peak_bytes: Spread | None
    loss: float
    gradient_norm: float


def summarise(turns: Turns, rungs: Sequence[Rung]) -> list[RungSummary]:
    """Summarise every rung that was measured, in the ladder's order."""
    first = turns.measured.get(rungs[0])
    return [
        _summarise(rung, turns.measured[rung], first, turns.gemm_peaks)
        for rung in rungs
        if rung in turns.measured
    ]


def _summarise(
    rung: Rung,
    done: Sequence[Measurement],
    first: Sequence[Measurement] | None,
    gemm_peaks: Sequence[float],
) -> RungSummary:
    flops = [one.useful_flops / one.seconds for one in done]
    peaks = [one.peak_bytes for one in done if one.peak_bytes is not None]
    ratio = None
    if first is not None:
        pairs = zip(done, first, strict=True)
        ratio = spread([base.seconds / one.seconds for one, base in pairs])
    return RungSummary(
        rung=rung,
        examples_per_second=spread([one.examples / one.seconds for one in done]),
        tokens_per_second=spread([one.own_tokens / one.seconds for one in done]),
        useful_flops_per_second=spread(flops),
        share_of_peak=spread([f / p for f, p in zip(flops, gemm_peaks, strict=True)]),
        ratio=ratio,
        peak_bytes=spread(peaks) if peaks else None,
        loss=done[0].loss,
        gradient_norm=done[0].gradient_norm,
    )


def disagreements(
    summaries: Sequence[RungSummary], precision: Precision, *, of_text: bool
) -> list[str]:
    """Say which rungs do not compute what the first one does, by loss and gradient of one step.

    Args:
        summaries: The rungs that were measured.
        precision: Type of the base.
        of_text: Whether the rows are text; of random token ids in 16 bits only losses are compared.
    """
    compared = [("loss", LOSS_TOLERANCE)]
    if of_text or precision is Precision.fp32:
        compared.append(("gradient_norm", GRADIENT_TOLERANCE))
    found = []
    for summary in summaries[1:]:
        for name, tolerances in compared:
            expected, value = getattr(summaries[0], name), getattr(summary, name)
            # Written so that NaN is a disagreement, too.
            if not abs(value - expected) <= tolerances[precision] * abs(expected):
                found.append(
                    f"{summary.rung.title}: {name.replace('_', ' ')} {value:.6g}, but "
                    f"{expected:.6g} in {summaries[0].rung.title}"
                )
    return found
