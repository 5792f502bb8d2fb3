"""What a user types for a file -> a path, with the closest names where there is nothing."""

import difflib
from importlib.resources import files
from pathlib import Path

from exp.errors import DataError

BUILTIN = "builtin:"


def locate(name: str, where: str | None = None) -> Path:
    """Return the path of an existing file.

    Args:
        name: A path, relative to the current folder or absolute, or `builtin:` and a path below
            the shipped tasks.
        where: The setting that names the file, for errors. None: the file's own name.

    Raises:
        DataError: It is not there, is a folder, or nobody may look.
    """
    try:
        return _locate(name, where)
    except (OSError, RuntimeError) as error:  # a name too long, a closed folder; an unknown ~user
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise DataError(
            f"There is no way to {name}: {reason}.",
            where=f"{where}={name}" if where else name,
            fix="check the path, and who may read its folders",
        ) from None


def _locate(name: str, where: str | None) -> Path:
    if name.startswith(BUILTIN):
        base = Path(str(files("exp.data"))) / "tasks"
        path = base / name.removeprefix(BUILTIN)
    else:
        path = Path(name).expanduser()
    if path.is_file():
        return path
    where = f"{where}={name}" if where else name
    if path.is_dir():
        raise DataError(
            f"{name} is a folder, not a file.", where=where, fix=_say_files(path, name, None)
        )
    if path.exists():
        raise DataError(
            f"{name} is a pipe or a device, which cannot be read twice.",
            where=where,
            fix="write its content to a file first",
        )
    folder = path.parent
    if not folder.is_dir():
        raise DataError(
            f"There is no file {name}: the folder {folder} does not exist.",
            where=where,
            fix="check the path; it is relative to the folder where the command is run",
        )
    raise DataError(
        f"There is no file {name}.", where=where, fix=_say_files(folder, name, path.name)
    )


def _say_files(folder: Path, name: str, wanted: str | None) -> str:
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if not there:
        return "check the path; the folder holds no file"
    close = difflib.get_close_matches(wanted, there, n=3, cutoff=0.5) if wanted else []
    parent = name.removesuffix(wanted) if wanted else name.rstrip("/") + "/"
    shown = " or ".join(parent + entry for entry in (close or there)[:3])
    return f"did you mean {shown}?" if close else f"give a file that is there, like {shown}"
