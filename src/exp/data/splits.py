"""Training rows -> training, validation and test split, where there are no files for them."""

import hashlib
import unicodedata

import numpy as np

from exp.data.sources.examples import Examples
from exp.errors import DataError

SPLITS = ("train", "validation", "test")
_RANGE = 2**64


def fold_input(text: str) -> str:
    """Bring an input into the form in which it is compared: no Unicode forms, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def split_point(text: str) -> int:
    """Return the place of an input on a line from 0 to 2**64; what folds alike has one place."""
    return int.from_bytes(hashlib.sha256(fold_input(text).encode()).digest()[:8], "big")


def divide(
    examples: Examples, validation_fraction: float, test_fraction: float
) -> dict[str, Examples]:
    """Split by input text, not by row: an input's duplicates are all in the same split.

    Where an example goes depends on its input and the fractions alone, not on other rows or their
    order. Test takes the low end of the line and validation the high end, so that changing one
    fraction leaves the other split as it is.

    Args:
        examples: All rows.
        validation_fraction: Share of inputs for validation, 0 to 1; 0 makes no such split.
        test_fraction: Share of inputs for the test, 0 to 1; 0 makes no such split.

    Raises:
        DataError: A split comes out empty.
    """
    if not validation_fraction and not test_fraction:
        return {"train": examples}
    points = np.fromiter((split_point(example.input) for example in examples), dtype=np.uint64)
    split = np.full(len(points), SPLITS.index("train"), dtype=np.int8)
    if validation_fraction:
        first = min(_RANGE - int(validation_fraction * _RANGE), _RANGE - 1)
        split[points >= np.uint64(first)] = SPLITS.index("validation")
    if test_fraction:
        split[points < np.uint64(int(test_fraction * _RANGE))] = SPLITS.index("test")
    fractions = {"train": 1.0, "validation": validation_fraction, "test": test_fraction}
    wanted = [name for name in SPLITS if fractions[name]]
    rows = {name: np.flatnonzero(split == SPLITS.index(name)) for name in wanted}
    for name in wanted:
        if not len(rows[name]):
            raise _empty(name, examples, len(np.unique(points)), fractions[name])
    return {name: examples.select(rows[name]) for name in wanted}


def _empty(name: str, examples: Examples, num_inputs: int, fraction: float) -> DataError:
    what = (
        f"The {name} split comes out empty: the training rows hold {num_inputs:,} different "
        f"{'input' if num_inputs == 1 else 'inputs'}"
    )
    if name == "train":
        fix = "smaller task.validation_fraction and task.test_fraction, or more rows"
    else:
        what += f", task.{name}_fraction={fraction:g}"
        fix = f"task.{name}=<file>, or another task.{name}_fraction (0 for no such split)"
    return DataError(f"{what}.", where=examples.name, fix=fix)
