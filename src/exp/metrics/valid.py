"""Share of predictions from which JSON can be read."""

from exp.metrics.metric import JSON, rate

VALID = rate("valid", lambda row: row.valid, JSON)
