"""Share of predictions with the canonical form of the reference, the order of lists included."""

from exp.metrics.metric import JSON, TEXT, rate

EXACT_MATCH = rate("exact_match", lambda row: row.exact, JSON | TEXT)
