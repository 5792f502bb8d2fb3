import pytest

from exp.hardware.packages import judge_requirements, read_packages


def test_the_packages_of_the_project_are_read_from_its_metadata() -> None:
    packages = {package.name: package for package in read_packages()}
    assert packages["torch"].extra is None
    assert packages["torch"].installed is not None
    assert packages["bitsandbytes"].extra == "quantization"
    assert "pytest" not in packages


def test_what_the_whole_project_needs_comes_before_what_its_parts_need() -> None:
    extras = [package.extra is not None for package in read_packages()]
    assert extras == sorted(extras)


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        ("pytest>=1", True),
        ("pytest>=1000", False),
        ("pytest<1", False),
        ("pytest", True),
        ("no-such-package-anywhere>=1", False),
        ("no-such-package-anywhere", False),
    ],
)
def test_a_package_fits_if_a_wanted_version_is_installed(requirement: str, fits: bool) -> None:
    (package,) = judge_requirements([requirement])
    assert package.fits is fits


def test_what_to_type_names_the_extra_or_the_wanted_version() -> None:
    core, part = judge_requirements(["absent>=2,<3", "other>=1; extra == 'flash'"])
    assert core.install == 'pip install "absent<3,>=2"'
    assert part.install == 'pip install "exp[flash]"'


def test_a_requirement_of_another_system_is_none_of_this_one() -> None:
    assert judge_requirements(["absent>=2; python_version < '3'"]) == ()
