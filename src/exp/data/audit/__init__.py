"""What is wrong with a data set, found before a model is trained on it.

checks     the table of all checks: name, severity, what holds where it passes, what to type
rows       one row through the render code, as it will be trained on
tally      faults while they are found; findings and report   what comes of them
text, tokens, outputs     checks of one row by itself
duplicates, near          checks over all rows of all splits
fields, facts             what the splits look like: lengths, fields, values
audit      the pass over all rows; cached   its result, kept under a key of all that decides it
"""

from exp.data.audit.cached import open_audit
from exp.data.audit.report import AuditReport
from exp.data.audit.settings import AuditSettings

__all__ = ["AuditReport", "AuditSettings", "open_audit"]
