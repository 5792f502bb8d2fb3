import pytest

from exp.hardware.capability import (
    MINIMUM_CUDA,
    ComputeCapability,
    format_capability,
    has_kernels_for,
    minimum_cuda,
    parse_capability,
)


@pytest.mark.parametrize("text", ["", "8", "8,9", "8.9.1", "a.b", "-8.9", "8.", ".9", "sm_89"])
def test_what_is_not_a_compute_capability_is_not_read_as_one(text: str) -> None:
    assert parse_capability(text) is None


@pytest.mark.parametrize("capability", MINIMUM_CUDA)
def test_a_capability_survives_writing_and_reading(capability: ComputeCapability) -> None:
    assert parse_capability(format_capability(capability)) == capability


@pytest.mark.parametrize(
    ("capability", "cuda"),
    [
        ((7, 5), (10, 0)),
        ((8, 0), (11, 0)),
        # The binaries for 8.0 run on 8.9.
        ((8, 9), (11, 0)),
        ((9, 0), (11, 8)),
        ((12, 0), (12, 8)),
        ((12, 1), (12, 8)),
        # Too old for the table: any build may have it, the list of kernels decides.
        ((6, 0), (0, 0)),
        # Newer than the table: at least what the newest known card needs.
        ((13, 0), (12, 9)),
    ],
)
def test_the_oldest_cuda_for_a_card_is(capability: ComputeCapability, cuda: object) -> None:
    assert minimum_cuda(capability) == cuda


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        (["sm_75", "sm_80"], (7, 5), True),
        (["sm_75", "sm_80"], (8, 9), True),
        (["sm_86"], (8, 0), False),
        (["sm_75", "sm_80", "sm_86", "sm_90"], (12, 0), False),
        (["sm_90", "compute_90"], (12, 0), True),
        (["compute_120"], (9, 0), False),
        (["sm_120"], (12, 1), True),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_100f"], (10, 3), True),
        (["compute_90a"], (12, 0), False),
        ([], (12, 0), True),
        (["gfx942"], (9, 4), True),
    ],
)
def test_kernels_run_where_nvidia_says_they_do(
    archs: list[str], capability: ComputeCapability, runs: bool
) -> None:
    assert has_kernels_for(archs, capability) is runs
