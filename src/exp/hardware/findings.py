"""What comes up while wishes and machine are brought together: reasons, warnings, errors."""

from dataclasses import dataclass, field

from exp.config.schema import HardwareConfig
from exp.errors import HardwareError, UserError
from exp.records import Derived, Json


@dataclass
class Findings:
    """Gathers in the order of discovery, so that all errors are shown together."""

    hardware: HardwareConfig
    reasons: list[Derived] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[UserError] = field(default_factory=list)

    def because(self, name: str, value: Json, reason: str) -> None:
        """Keep why a value came out as it did."""
        self.reasons.append(Derived(name, value, reason))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def refuse(self, what: str, setting: str, fix: str) -> None:
        """Keep a wish that this machine cannot fulfil.

        Args:
            what: What is wrong, with what the machine has.
            setting: The wish as it is typed, `hardware.precision=bf16`.
            fix: What to type instead.
        """
        self.errors.append(HardwareError(what, where=self.where(setting), fix=fix))

    def where(self, setting: str) -> str:
        profile = f"hardware={self.hardware.name}"
        return setting if setting == profile else f"{setting} with {profile}"
