"""An audit on the console: what the splits are like, each check, each finding with its fix."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from exp.data.audit.checks import CHECKS, Severity
from exp.data.audit.report import AuditReport, Finding, Spread
from exp.redaction import redact
from exp.report.console import print_next_steps, print_table
from exp.report.visible import shorten, visible

SHOWN_CHARS = 300


def print_audit(report: AuditReport, title: str, console: Console | None = None) -> None:
    """Print the splits, all checks, and for each finding where it is and what to type."""
    columns = ["split", "rows", "tokens: median", "p95", "longest", "labels: median", "longest"]
    rows = [
        (split.name, f"{split.num_rows:,}", *_cells(split.tokens, True), *_cells(split.labels))
        for split in report.splits
    ]
    print_table(columns, rows, title=title, right=range(1, len(columns)), console=console)
    names = [split.name for split in report.splits]
    found = {(finding.check, finding.split): finding for finding in report.findings}
    checks = []
    for check in CHECKS:
        of_check = [finding for name in names if (finding := found.get((check.name, name)))]
        worst = min((finding.severity for finding in of_check), default=None)
        counts = [
            f"{found[check.name, name].count:,}" if (check.name, name) in found else "-"
            for name in names
        ]
        checks.append((worst.value if worst else "ok", check.name, *counts, check.claim))
    columns = ["", "check", *names, "what holds where it is ok"]
    print_table(columns, checks, title="Checks", right=range(2, 2 + len(names)), console=console)
    for severity in Severity:
        findings = [finding for finding in report.findings if finding.severity is severity]
        if findings:
            _print_findings(findings, f"{severity.value.title()}s", console or Console())
    num_errors, num_warnings = len(report.errors), len(report.warnings)
    verdict = "can be trained on" if not num_errors else "would stop a training"
    counted = f"{report.num_rows:,} rows, {len(CHECKS)} checks"
    print_next_steps(
        [f"{counted}: {num_errors} errors, {num_warnings} warnings; the data {verdict}"],
        console=console,
    )


def _print_findings(findings: Sequence[Finding], title: str, console: Console) -> None:
    """Print findings in the three lines of an error."""
    console.print()
    console.print(Text(title, style="bold"))
    for finding in findings:
        where = shorten(finding.where, SHOWN_CHARS)
        lines = (finding.what, f"  where: {where}", f"  fix:   {finding.fix}")
        for line in lines:
            text = Text(visible(redact(line)))
            console.print(text, soft_wrap=not console.is_terminal, highlight=False)


def _cells(spread: Spread | None, with_p95: bool = False) -> tuple[str, ...]:
    if spread is None:
        return ("-",) * (3 if with_p95 else 2)
    values = (spread.median, spread.p95, spread.high) if with_p95 else (spread.median, spread.high)
    return tuple(f"{value:,.0f}" for value in values)
