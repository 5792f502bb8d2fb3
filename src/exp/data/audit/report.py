"""The result of an audit: findings and facts, which can be written as JSON and read back."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from exp.data.audit.checks import Severity
from exp.errors import DataError, raise_collected

SHOWN_IDS = 10


@dataclass(frozen=True, slots=True)
class FaultyRow:
    """A row with a fault: where it stands in its file, and what exactly is wrong."""

    row: int
    id: str
    place: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that some rows of a split do not pass.

    Attributes:
        check: Name of the check.
        severity: Whether it stops a training.
        split: Name of the split.
        what: One sentence with the number of rows.
        fix: What to type.
        count: Number of rows.
        rows: The first of them.
    """

    check: str
    severity: Severity
    split: str
    what: str
    fix: str
    count: int
    rows: tuple[FaultyRow, ...]

    @property
    def where(self) -> str:
        """The first place, and the ids."""
        if not self.rows:
            return self.split
        ids = ", ".join(row.id for row in self.rows[:SHOWN_IDS] if row.id)
        more = f" ({self.rows[0].detail})" if self.rows[0].detail else ""
        etc = " ..." if self.count > SHOWN_IDS else ""
        return f"{self.rows[0].place}{more}" + (f"; ids {ids}{etc}" if ids else "")


@dataclass(frozen=True, slots=True)
class Spread:
    """How some numbers lie, in their own unit, and how many fall between the report's edges."""

    low: float
    median: float
    p95: float
    high: float
    mean: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One field of the outputs of a split.

    Attributes:
        path: Like `lines[].product`.
        num_rows: Rows that have it.
        num_strings: String values that are no label of the schema.
        num_grounded: Those of them that occur in their input.
        num_distinct: Distinct strings and truth values, as far as they were counted.
        values: The most frequent of them, with their numbers.
    """

    path: str
    num_rows: int
    num_strings: int
    num_grounded: int
    num_distinct: int
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """What a split looks like.

    Attributes:
        name: train, validation or test.
        source: The file, as the user wrote it.
        num_rows: All rows.
        tokens: Prompt and completion together, per row; None where no row could be rendered.
        labels: Tokens of the completion, end token included.
        longest: The rows with most tokens: (row, id, tokens).
        fields: By path.
    """

    name: str
    source: str
    num_rows: int
    tokens: Spread | None
    labels: Spread | None
    longest: tuple[tuple[int, str, int], ...]
    fields: tuple[FieldFacts, ...]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    `token_edges` and `label_edges` are the limits of the bars of all splits' histograms.
    """

    findings: tuple[Finding, ...]
    splits: tuple[SplitFacts, ...]
    token_edges: tuple[float, ...]
    label_edges: tuple[float, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.warning)

    @property
    def num_rows(self) -> int:
        return sum(split.num_rows for split in self.splits)

    def raise_errors(self) -> None:
        """Raise all errors together; nothing where there are only warnings.

        Raises:
            DataError: One check is not passed.
            UserErrors: Several are not.
        """
        raise_collected([DataError(f.what, where=f.where, fix=f.fix) for f in self.errors])

    def summary(self) -> dict[str, Any]:
        """Say in a few numbers what came out, for the record of a run."""
        return {
            "rows": {split.name: split.num_rows for split in self.splits},
            "errors": dict(_counts(self.errors)),
            "warnings": dict(_counts(self.warnings)),
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "AuditReport":
        """Read what `to_json` wrote, also after a way through JSON."""
        return cls(
            findings=tuple(
                Finding(
                    **one
                    | {
                        "severity": Severity(one["severity"]),
                        "rows": tuple(FaultyRow(**row) for row in one["rows"]),
                    }
                )
                for one in content["findings"]
            ),
            splits=tuple(map(_split, content["splits"])),
            token_edges=tuple(content["token_edges"]),
            label_edges=tuple(content["label_edges"]),
        )


def _counts(findings: tuple[Finding, ...]) -> Iterator[tuple[str, int]]:
    for finding in findings:
        yield f"{finding.split}/{finding.check}", finding.count


def _split(content: dict[str, Any]) -> SplitFacts:
    return SplitFacts(
        name=content["name"],
        source=content["source"],
        num_rows=content["num_rows"],
        tokens=_spread(content["tokens"]),
        labels=_spread(content["labels"]),
        longest=tuple((row, id_, tokens) for row, id_, tokens in content["longest"]),
        fields=tuple(
            FieldFacts(**one | {"values": tuple((v, n) for v, n in one["values"])})
            for one in content["fields"]
        ),
    )


def _spread(content: dict[str, Any] | None) -> Spread | None:
    if content is None:
        return None
    return Spread(**content | {"histogram": tuple(content["histogram"])})
