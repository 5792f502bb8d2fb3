"""What a user can have got wrong, said in three lines: what, where, what to type.

UserError
├── ConfigError         a setting is unknown, of the wrong type, or impossible with another
├── DataError           a file or a row is not what the task needs
├── ModelError          a model cannot be found, loaded or served
├── CheckpointError     a run folder or a checkpoint is missing or damaged
├── HardwareError       this machine cannot do what was asked
├── TrainingError       training itself went wrong
└── MissingExtraError   an optional package is not installed
"""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake that the user can mend; printed without a traceback.

    Args:
        what: What is wrong, with the offending value and the limit.
        where: The config path and file, or the data file and line.
        fix: What to do about it, as something that can be typed.
    """

    exit_code = 2

    def __init__(self, what: str, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or impossible together with another."""


class DataError(UserError):
    """A file or a row is not what the task needs."""


class ModelError(UserError):
    """A model cannot be found, loaded or served."""


class CheckpointError(UserError):
    """A run folder or a checkpoint is missing or damaged."""


class HardwareError(UserError):
    """This machine cannot do what was asked."""


class TrainingError(UserError):
    """Training itself went wrong: settings that were fine by themselves led nowhere."""

    exit_code = 1


class MissingExtraError(UserError):
    """An optional package is not installed; the fix is the exact pip line."""

    def __init__(self, package: str, extra: str, where: str | None = None) -> None:
        super().__init__(
            f"{package} is not installed.", where=where, fix=f'pip install "exp[{extra}]"'
        )
        self.args = (package, extra, where)  # what pickle makes it anew from


class UserErrors(UserError):
    """Several mistakes, found in one pass and shown together."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__(f"{len(errors)} problems")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n\n".join(str(error) for error in self.errors)


def raise_collected(errors: Sequence[UserError]) -> None:
    """Raise nothing, the only error, or all of them together."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserErrors(errors)
