"""The base of every part of the configuration: open while it is built, closed afterwards."""

from dataclasses import FrozenInstanceError, fields
from typing import Any


class Section:
    """Part of the configuration that can be closed, after which nothing assigns to it.

    `frozen=True` would not do: OmegaConf then makes the schema read-only, and no setting could be
    given on the command line. A changed copy is made with `dataclasses.replace`; it is open.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("_closed", False):
            raise FrozenInstanceError(
                f"the configuration is closed; {type(self).__name__}.{name} stays as it is"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be removed")


def close(section: Section) -> None:
    """Close a section and all sections inside it."""
    for field in fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if isinstance(value, Section):
            close(value)
    object.__setattr__(section, "_closed", True)
