"""What a prediction depends on, as bytes, and the key that follows from it.

The key is a hash of contents and never of names, and the bytes behind it are kept beside every
prediction and compared on read. A prediction is served for exactly the computation that made it.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass

KEY_VERSION = 1
"""Raised when the meaning of a key or of a payload changes, so that older entries are misses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyContext:
    """All that is equal for the rows of one evaluation and can change what the model writes.

    Every field enters the key. There are no defaults but the version, so that none is forgotten.
    """

    version: int = KEY_VERSION
    base_weights: str
    """Digest of the base model's weight files, or of architecture and seed for random weights."""
    adapter: str | None
    """Digest of the adapter's weights and configuration. None: the base model alone."""
    quantization: str
    dtype: str
    """Type of the arithmetic, such as bf16."""
    attention: str
    """Attention kernels, such as sdpa."""
    device_class: str
    """Kind of device, such as cpu or "NVIDIA L4"; kernels and so roundings differ between kinds."""
    strategy: str
    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    num_beams: int
    no_repeat_ngram_size: int
    length_penalty: float
    constraint: str | None
    """Digest of the grammar or schema that decoding obeys. None: free."""
    drafting: str | None
    """Digest of what drafts are proposed from. None: without. Roundings depend on it below fp32."""
    batch_policy: str
    """How rows share a forward: slots. Roundings depend on it below fp32."""
    tokenizer: str
    """Digest of tokenizer and chat template, because text is decoded with it."""
    code: str
    """Digest of the modules that generate."""
    torch: str
    """Version of torch."""
    transformers: str
    """Version of transformers."""

    def preimage(self) -> bytes:
        """Write the context in its one canonical form: sorted, compact ASCII JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode("ascii")


@dataclass(frozen=True, slots=True)
class Request:
    """One row to predict: its id, its whole prompt, and its seed where tokens are sampled.

    The id is not part of the key: equal prompts have equal predictions.
    """

    id: str
    prompt_ids: Sequence[int]
    seed: int | None = None

    def preimage(self) -> bytes:
        """Write seed (9 bytes) and prompt ids (int32 each), little-endian."""
        seed = b"\0" * 9 if self.seed is None else b"\1" + self.seed.to_bytes(8, "little")
        ids = array("i", self.prompt_ids)
        if sys.byteorder == "big":
            ids.byteswap()
        return seed + ids.tobytes()


def prediction_key(context_sha256: bytes, request: bytes) -> bytes:
    """Hash the two preimages; the first part has a fixed length, so no two pairs collide."""
    return hashlib.sha256(context_sha256 + request).digest()
