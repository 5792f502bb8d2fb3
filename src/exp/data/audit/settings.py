"""What an audit is held to."""

from dataclasses import dataclass

from exp.config.schema import OnOverlong


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The limits of the checks that have one.

    Attributes:
        max_length_tokens: Longest prompt and completion together; None for no limit.
        on_overlong: What a training does with a longer row.
        near_similarity: Jaccard similarity from which two inputs are near duplicates, 0 to 1.
        min_grounded: Share of output strings that should occur in their inputs, 0 to 1.
    """

    max_length_tokens: int | None = None
    on_overlong: OnOverlong = OnOverlong.error
    near_similarity: float = 0.8
    min_grounded: float = 0.5
