"""The rungs of the ladder: from one row at a time to what this project does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to decode the same rows greedily; each differs from the one before in one thing.

    Attributes:
        name: Its key in files.
        title: What it adds, for tables.
        row_share: Share of the rows that it decodes, so that slow rungs do not take hours.
        merged: The adapter is merged into the weights.
        engine: This project's engine decodes; else transformers' generate.
        batch_size: Rows of a left-padded batch, for transformers.
        key_value_cache: Keys and values are kept between tokens, likewise.
        share_prefix: See `Engine`, like the others.
    """

    name: str
    title: str
    row_share: float = 1.0
    merged: bool = True
    engine: bool = True
    batch_size: int = 1
    key_value_cache: bool = True
    share_prefix: bool = True
    refill: bool = True
    drafting: bool = True
    constrained: bool = False


LADDER = (
    Rung(
        "one_uncached",
        "transformers, a row at a time, no cache",
        row_share=0.0625,
        merged=False,
        engine=False,
        key_value_cache=False,
    ),
    Rung("one", "+ key-value cache", row_share=0.125, merged=False, engine=False),
    Rung("padded", "+ padded batches of 8", merged=False, engine=False, batch_size=8),
    Rung("merged", "+ merged adapter", engine=False, batch_size=8),
    Rung("slots", "this engine", share_prefix=False, refill=False, drafting=False),
    Rung("prefix", "+ shared prefix", refill=False, drafting=False),
    Rung("refill", "+ refill", drafting=False),
    Rung("drafting", "+ drafting"),
    Rung("constraint", "+ schema", constrained=True),
)
