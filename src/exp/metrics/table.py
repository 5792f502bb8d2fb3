"""All metrics by name. A metric is one module and one line here."""

from exp.metrics.bleu import BLEU
from exp.metrics.exact_match import EXACT_MATCH
from exp.metrics.field import FIELD_F1, FIELD_PRECISION, FIELD_RECALL
from exp.metrics.metric import Metric
from exp.metrics.schema_valid import SCHEMA_VALID
from exp.metrics.text_match import TEXT_MATCH
from exp.metrics.valid import VALID

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        FIELD_F1,
        FIELD_PRECISION,
        FIELD_RECALL,
        EXACT_MATCH,
        VALID,
        SCHEMA_VALID,
        BLEU,
        TEXT_MATCH,
    )
}
