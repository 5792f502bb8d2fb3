"""The manifest that commits a checkpoint folder: size and SHA-256 of every file, and its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exp.errors import CheckpointError

MANIFEST = "MANIFEST.json"

_FORMAT = 1


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Write JSON in the one form that is used for checkpoints; non-finite numbers are refused."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def seal(body: Mapping[str, Any]) -> bytes:
    """Write JSON that carries the SHA-256 of its own content."""
    digest = hashlib.sha256(json_bytes(body)).hexdigest()
    return json_bytes({**body, "sha256": digest})


def unseal(data: bytes) -> dict[str, Any] | None:
    """Read what `seal` wrote; None if as much as one byte differs, is missing or was added."""
    try:
        body = json.loads(data)
        del body["sha256"]
        return body if seal(body) == data else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def manifest_bytes(step: int, files: Mapping[str, bytes]) -> bytes:
    entries = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    return seal({"format": _FORMAT, "step": step, "files": entries})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest: `step`, and `files` with `size` (bytes) and `sha256` of each.

    Raises:
        CheckpointError: It is missing, damaged, or of another format.
    """
    path = folder / MANIFEST
    manifest = unseal(_read(path))
    if manifest is None:
        raise damaged(path, "it is cut or altered")
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest.get('format')}; this version reads {_FORMAT}.",
            where=str(path),
            fix="use the version of exp that run.json names",
        )
    return manifest


def verify_files(folder: Path) -> None:
    """Compare every file that the manifest lists with its size and SHA-256, in constant memory.

    Raises:
        CheckpointError: Something is missing or differs; the message names the file.
    """
    for name, entry in read_manifest(folder)["files"].items():
        path = folder / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise damaged(path, error.strerror or str(error)) from error
        _compare(path, entry, size, digest)


def read_files(folder: Path) -> tuple[int, dict[str, bytes]]:
    """Read the step and the verified bytes of every file that the manifest lists.

    Raises:
        CheckpointError: Something is missing or differs; the message names the file.
    """
    manifest = read_manifest(folder)
    content = {}
    for name, entry in manifest["files"].items():
        data = _read(folder / name)
        _compare(folder / name, entry, len(data), hashlib.sha256(data).hexdigest())
        content[name] = data
    return manifest["step"], content


def damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {reason}.", where=str(path), fix="checkpoint=last")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def _compare(path: Path, entry: Mapping[str, Any], size: int, digest: str) -> None:
    if size != entry["size"]:
        raise damaged(path, f"it has {size:,} bytes instead of {entry['size']:,}")
    if digest != entry["sha256"]:
        raise damaged(path, "its SHA-256 is not the one in the manifest")
