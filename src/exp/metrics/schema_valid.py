"""Share of predictions that keep to the task's JSON Schema; what cannot be read does not."""

from dataclasses import replace

from exp.metrics.metric import JSON, rate

SCHEMA_VALID = replace(
    rate("schema_valid", lambda row: bool(row.schema_valid), JSON), needs_schema=True
)
