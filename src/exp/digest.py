"""Digests of files and of source code, as parts of keys under which results are kept."""

import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from exp.cachedir import cache_dir
from exp.errors import UserError
from exp.publish import PublishError, write_atomically

# Below this size hashing costs less than remembering.
_REMEMBER_BYTES = 8 * 2**20
# A file changed within the clock's grain of its hashing could change again under the same times.
_SETTLED_NS = 3 * 10**9


def code_digest(modules: Iterable[str]) -> str:
    """Hash the source of modules, and of packages with all that is below them.

    The modules themselves are not imported. Where the package lies does not matter, nor the order.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_sources(modules).items()):
        source = path.read_bytes()
        digest.update(f"{name}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


def file_digest(path: Path, memory: Path | None = None) -> str:
    """Compute the SHA-256 of a file; of large ones it is remembered as long as they rest unchanged.

    A remembered digest holds for exactly the same path, size, inode and times of change; the time
    of the last status change cannot be set back by programs.

    Args:
        path: The file.
        memory: Folder of remembered digests. None: below EXP_CACHE_DIR.

    Raises:
        UserError: The file cannot be read.
    """
    path = path.resolve()
    try:
        before = _identity(path)
        note = _note(path, memory) if before[0] >= _REMEMBER_BYTES else None
        known = None if note is None else _recall(note, path, before)
        if known is not None:
            return known
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        settled = time.time_ns() - max(before[1:3]) > _SETTLED_NS
        if note is not None and settled and _identity(path) == before:
            _remember(note, path, before, sha256)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}.",
            where=str(path),
            fix=f"look at it with: ls -l {path}",
        ) from error
    return sha256


def _sources(modules: Iterable[str]) -> dict[str, Path]:
    sources = {}
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ValueError(f"{module} has no source file")
        origin = Path(spec.origin)
        if spec.submodule_search_locations is None:
            sources[module] = origin
            continue
        for path in origin.parent.rglob("*.py"):
            below = path.relative_to(origin.parent).with_suffix("").parts
            sources[".".join((module, *below)).removesuffix(".__init__")] = path
    return sources


def _identity(path: Path) -> list[int]:
    """Return size, times of the last change of content and of status (ns), inode and device."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _note(path: Path, memory: Path | None) -> Path | None:
    """Say where a file's digest is remembered; None where no folder can be had for it."""
    try:
        folder = memory or cache_dir("digests")
    except UserError:
        return None
    return folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"


def _recall(note: Path, path: Path, identity: list[int]) -> str | None:
    try:
        sha256, check = json.loads(note.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return sha256 if check == _check(path, identity, sha256) else None


def _remember(note: Path, path: Path, identity: list[int], sha256: str) -> None:
    """Keep a digest, bound to what it is of, so that no damaged or misplaced note is believed."""
    try:
        write_atomically(note, json.dumps([sha256, _check(path, identity, sha256)]))
    except PublishError:
        # Hashing again next time is the whole cost.
        return


def _check(path: Path, identity: list[int], sha256: object) -> str:
    return hashlib.sha256(json.dumps([os.fsdecode(path), identity, sha256]).encode()).hexdigest()
