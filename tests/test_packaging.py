"""What the wheel holds, and that it works away from the checkout."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import exp
from exp.config.groups import main_folder

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
PIN_LINES = [
    line
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
]
PINS = {canonicalize_name(name): version for name, version in (p.split("==") for p in PIN_LINES)}


def source_files(folder: Path) -> set[str]:
    """List all files below a folder, as paths relative to it."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the tools that are installed, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", folder, CHECKOUT],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    (built,) = folder.glob("exp-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel into a folder of its own, which is all that installing it elsewhere does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run exp from the unpacked wheel, elsewhere than in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "exp", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.thorough
def test_wheel_holds_every_source_and_data_file(installed: Path) -> None:
    packed = source_files(installed / "exp")
    assert source_files(CHECKOUT / "src" / "exp") <= packed
    assert {f"conf/{name}" for name in source_files(CHECKOUT / "conf")} <= packed


@pytest.mark.thorough
def test_wheel_holds_nothing_but_the_package_and_its_metadata(installed: Path) -> None:
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"exp"}
    assert list(installed.glob("exp-*.dist-info/licenses/LICENSE"))


def test_help_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: exp" in done.stdout


@pytest.mark.thorough
def test_configuration_composes_from_the_wheel_and_leaves_no_trace(
    installed: Path, tmp_path: Path
) -> None:
    where = "import exp.config.groups as groups; print(groups.main_folder())"
    command = [sys.executable, "-c", where]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert Path(found.stdout.strip()) == installed / "exp" / "conf", found.stderr

    done = run_installed(installed, tmp_path, "train", "--cfg", "job", "lora=baseline")
    assert done.returncode == 0, done.stderr
    assert "name: smollm2_135m" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_checkout_uses_its_own_conf() -> None:
    assert main_folder() == CHECKOUT / "conf"


def test_package_and_metadata_agree_on_the_version() -> None:
    assert exp.__version__ == PROJECT["version"]


@pytest.mark.parametrize("group", [None, "quantization", "dev"])
def test_every_dependency_is_pinned_within_its_range(group: str | None) -> None:
    listed = PROJECT["optional-dependencies"][group] if group else PROJECT["dependencies"]
    requirements = [Requirement(text) for text in listed]
    assert {r.name for r in requirements if canonicalize_name(r.name) not in PINS} == set()
    outside = {r.name for r in requirements if PINS[canonicalize_name(r.name)] not in r.specifier}
    assert outside == set()


def test_every_dependency_of_a_dependency_is_pinned() -> None:
    """Walk the installed metadata from the project on; what it reaches is what set-up installs."""
    waiting = [("exp", extra) for extra in ("", "dev", "quantization")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for text in requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in {"", *requirement.extras}:
                if (requirement.name, wanted) not in seen:
                    seen.add((requirement.name, wanted))
                    waiting.append((requirement.name, wanted))
    assert {name for name, _ in seen if canonicalize_name(name) not in PINS} == {"exp"}


def test_pins_are_names_with_public_versions() -> None:
    pin = re.compile(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*")
    assert [line for line in PIN_LINES if not pin.fullmatch(line)] == []
