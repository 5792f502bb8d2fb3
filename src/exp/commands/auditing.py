"""The audit as `exp audit` and every training run it: limits, cache, progress."""

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from exp.config.schema import AuditConfig, DataConfig
from exp.data import tokens
from exp.data.audit import AuditReport, AuditSettings, open_audit
from exp.data.render import Renderer
from exp.data.task import Task
from exp.digest import code_digest
from exp.model.context_length import context_length
from exp.model.source import ModelFiles
from exp.report.progress import progress

if TYPE_CHECKING:
    from exp.commands.foundation import Foundation

CODE = ("exp.data.audit", *tokens.CODE)
"""What a result depends on besides the data; another version of it audits anew."""

log = logging.getLogger(__name__)


def audit_settings(config: Any, files: ModelFiles) -> AuditSettings:
    """Close the limits of an audit.

    Args:
        config: An AuditConfig, or a TrainConfig, which leaves the limits that it has not at their
            defaults.
        files: The model's.
    """
    data: DataConfig = config.data
    own = config if isinstance(config, AuditConfig) else AuditConfig()
    return AuditSettings(
        max_length_tokens=data.max_length_tokens or context_length(config.model, files),
        on_overlong=data.on_overlong,
        near_similarity=own.near_similarity,
        min_grounded=own.min_grounded,
    )


def audited(task: Task, renderer: Renderer, settings: AuditSettings) -> AuditReport:
    """Audit a task, or open the result of the last time that all was as it is now."""
    total = sum(len(examples) for examples in task.splits.values())
    watch = partial(progress, "auditing", total)
    return open_audit(task, renderer, settings, code_digest(CODE), watch)


def audit_before_training(foundation: "Foundation", config: Any) -> AuditReport:
    """Stop a training whose data are not sound.

    Raises:
        DataError: A check finds errors.
        UserErrors: Several do.
    """
    settings = audit_settings(config, foundation.files)
    report = audited(foundation.task, foundation.renderer, settings)
    report.raise_errors()
    return report


def log_warnings(report: AuditReport) -> None:
    """Write one line per warning to the log."""
    for finding in report.warnings:
        log.warning("audit: %s  where: %s  fix: %s", finding.what, finding.where, finding.fix)
