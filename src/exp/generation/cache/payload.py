"""Predictions as stored bytes, bound to their key by a checksum."""

import hashlib
import json

from exp.records import Prediction


def encode(prediction: Prediction) -> bytes:
    """Write all of a prediction but its id, which belongs to the row that asked."""
    content = [
        prediction.text,
        prediction.finish_reason,
        prediction.num_tokens,
        list(prediction.token_ids),
    ]
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def decode(payload: bytes, id: str) -> Prediction:
    """Read a payload whose checksum was verified."""
    text, finish_reason, num_tokens, token_ids = json.loads(payload)
    return Prediction(id, text, finish_reason, num_tokens, tuple(token_ids), cached=True)


def checksum(key: bytes, created_ms: int, payload: bytes) -> bytes:
    """Bind a payload to its key and its time, so that a payload in another's row is noticed."""
    return hashlib.sha256(key + created_ms.to_bytes(8, "little", signed=True) + payload).digest()


def is_intact(key: object, created_ms: object, payload: object, stored: object) -> bool:
    """Verify values as they came out of a file that may be damaged, so of any type."""
    return (
        isinstance(key, bytes)
        and isinstance(created_ms, int)
        and isinstance(payload, bytes)
        and stored == checksum(key, created_ms, payload)
    )
