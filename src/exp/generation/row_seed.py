"""The seed of a sampled row, so that the rows beside it change nothing."""

import hashlib


def row_seed(seed: int, example_id: str) -> int:
    """Derive a 63-bit seed from the configured seed and the row's id."""
    digest = hashlib.sha256(f"{seed}/{example_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
