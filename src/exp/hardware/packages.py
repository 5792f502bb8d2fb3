"""Which packages are installed here, and whether they are what exp asks for. Imports none of them.

What exp asks for is read from its own installed metadata, so that it is written down in one place,
pyproject.toml.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

# For those who work on exp itself; nothing at run time needs it.
DEVELOPMENT = "dev"


@dataclass(frozen=True, slots=True)
class Package:
    """A package that exp uses.

    Attributes:
        name: The distribution's name.
        wanted: The versions that exp was made for, like ">=2.10"; "" for any.
        installed: The version that is here, None if it is not.
        extra: The optional part of exp that needs it; None if all of exp does.
    """

    name: str
    wanted: str
    installed: str | None
    extra: str | None = None

    @property
    def fits(self) -> bool:
        """Whether a version in the wanted range is installed."""
        return self.installed is not None and Requirement(
            f"{self.name}{self.wanted}"
        ).specifier.contains(self.installed, prereleases=True)

    @property
    def install(self) -> str:
        """What to type to get it."""
        if self.extra is not None:
            return f'pip install "exp[{self.extra}]"'
        return f'pip install "{self.name}{self.wanted}"'


def read_packages() -> tuple[Package, ...]:
    """List what exp depends on, and after it what its optional parts do."""
    return judge_requirements(metadata.requires("exp") or ())


def judge_requirements(requirements: Iterable[str]) -> tuple[Package, ...]:
    """Look up each requirement, as package metadata writes them, on this machine."""
    packages = []
    for text in requirements:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if extra == DEVELOPMENT:
            continue
        if extra is None and requirement.marker and not requirement.marker.evaluate():
            continue
        packages.append(
            Package(requirement.name, str(requirement.specifier), _version(requirement.name), extra)
        )
    return tuple(sorted(packages, key=lambda package: (package.extra is not None, package.name)))


def _extra_of(requirement: Requirement) -> str | None:
    """Return the extra whose marker lets the requirement in."""
    if requirement.marker is None or "extra ==" not in str(requirement.marker):
        return None
    return str(requirement.marker).partition("extra ==")[2].split('"')[1]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
