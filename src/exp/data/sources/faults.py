"""Bad rows: collected over a whole file, shown together, the first 20 with file and line."""

from dataclasses import dataclass, field

from exp.errors import DataError, raise_collected

MOST_SHOWN = 20
"""More errors than this tell a reader nothing new; the rest is counted."""


class RowFault(Exception):
    """What is wrong with one row, and what to do about it."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


@dataclass
class _Fault:
    reason: str
    fix: str | None
    place: str
    count: int = 1


@dataclass
class Faults:
    """Collects the bad rows of one file. Rows with the very same fault become one error."""

    name: str
    """The file, as the user wrote it."""
    _shown: dict[str, _Fault] = field(default_factory=dict)
    _num_rows: int = 0
    _num_not_shown: int = 0

    def add(self, fault: RowFault, place: str) -> None:
        self._num_rows += 1
        if known := self._shown.get(fault.reason):
            known.count += 1
        elif len(self._shown) < MOST_SHOWN:
            self._shown[fault.reason] = _Fault(fault.reason, fault.fix, place)
        else:
            self._num_not_shown += 1

    def raise_if_any(self) -> None:
        """Raise all faults as one error, with the number of bad rows where they are many.

        Raises:
            DataError: One row is bad, or all bad rows are bad in the same way.
            UserErrors: Several kinds of faults.
        """
        raise_collected(self.errors())

    def errors(self) -> list[DataError]:
        """Say all faults; the last error counts those that are not shown."""
        errors = [self._error(fault) for fault in self._shown.values()]
        if self._num_not_shown:
            errors.append(
                DataError(
                    f"{self._num_rows:,} rows of {self.name} are bad; the {self._num_not_shown:,} "
                    f"that are not shown have other faults than those above.",
                    where=self.name,
                    fix="mend the rows above first, then run the command again",
                )
            )
        return errors

    def _error(self, fault: _Fault) -> DataError:
        where = f"{self.name}, {fault.place}"
        if fault.count > 1:
            where += f", and {fault.count - 1:,} more like it"
        what = fault.reason if fault.reason.endswith(".") else f"{fault.reason}."
        return DataError(
            what[:1].upper() + what[1:], where=where, fix=fault.fix or "mend or remove the row"
        )
