"""Imports run downwards only, and every module can be imported by itself."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import exp

CHECKOUT = Path(__file__).parents[1]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(exp.__path__, "exp.")
    # Importing it runs the command line.
    if module.name != "exp.__main__"
]
CONTRACTS = """
[importlinter]
root_package = layered

[importlinter:contract:layers]
name = layers
type = layers
containers = layered
layers =
    upper
    lower
"""


def lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a folder, without its cache."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache", "--no-logo", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_run_downwards_only() -> None:
    done = lint_imports(CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    package = tmp_path / "layered"
    package.mkdir()
    (tmp_path / ".importlinter").write_text(CONTRACTS)
    (package / "__init__.py").touch()
    (package / "upper.py").touch()
    (package / "lower.py").write_text("import layered.upper\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "layered.lower is not allowed to import layered.upper" in done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_module_imports(name: str) -> None:
    importlib.import_module(name)
