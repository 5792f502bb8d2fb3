"""Faults while they are found: counted in full, listed up to a limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from exp.data.audit.checks import CHECKS, OVER_LONG, Check, Severity
from exp.data.audit.report import FaultyRow, Finding
from exp.data.sources.examples import Examples

if TYPE_CHECKING:
    from exp.data.audit.rows import AuditedRow

MOST_LISTED = 200
"""Rows listed per check and split; more tell a reader nothing new. Over-long ones are all listed,
as they may be left out of a training."""


@dataclass
class _Faults:
    count: int = 0
    rows: list[FaultyRow] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    severity: Severity | None = None


class Tally:
    """Collects the faulty rows of all checks and splits."""

    def __init__(self, splits: Mapping[str, Examples]) -> None:
        self._splits = splits
        self._found: dict[tuple[str, str], _Faults] = {}

    def add(self, check: Check, row: "AuditedRow", detail: str = "") -> None:
        """Note that a row does not pass a check."""
        self.add_at(check, row.split, row.number, row.example.id, detail)

    def add_at(self, check: Check, split: str, number: int, id_: str, detail: str = "") -> None:
        """Note that a row, given by its number in its split, does not pass a check."""
        faults = self._faults(check, split)
        faults.count += 1
        if len(faults.rows) < MOST_LISTED or check is OVER_LONG:
            place = self._splits[split].place(number)
            faults.rows.append(FaultyRow(number, id_, place, detail))

    def describe(
        self, check: Check, split: str, severity: Severity | None = None, **facts: Any
    ) -> None:
        """Give the facts that a check's words leave open, and another severity where it has one."""
        faults = self._faults(check, split)
        faults.facts, faults.severity = facts, severity

    def drop(self, check: Check, split: str) -> None:
        """Forget what was noted: taken together, the rows are sound."""
        self._found.pop((check.name, split), None)

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found: errors first, in the order of the table of checks."""
        found = [
            self._finding(check, split, faults)
            for check in CHECKS
            for split in self._splits
            if (faults := self._found.get((check.name, split))) and faults.count
        ]
        return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.error))

    def _faults(self, check: Check, split: str) -> _Faults:
        return self._found.setdefault((check.name, split), _Faults())

    def _finding(self, check: Check, split: str, faults: _Faults) -> Finding:
        if faults.severity is not None:
            check = replace(check, severity=faults.severity)
        total = len(self._splits[split])
        # Words like "task.schema" in a fix are no place holders; only described checks have any.
        fault = check.fault.format(**faults.facts) if faults.facts else check.fault
        fix = check.fix.format(**faults.facts) if faults.facts else check.fix
        return Finding(
            check=check.name,
            severity=check.severity,
            split=split,
            what=f"{check.name}: {faults.count:,} of {total:,} {split} rows {fault}.",
            fix=fix,
            count=faults.count,
            rows=tuple(sorted(faults.rows, key=lambda row: row.row)),
        )
