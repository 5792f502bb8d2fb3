"""Keeping secrets out of everything that leaves the process as text.

Applied where text is written (log handlers, metrics log, trackers, run record, reports), not where
it is made, so that a new message cannot forget it. What is taken for a secret: the value of an
environment variable with a secret's name, the user part of a URL, the value behind a secret's name
(`hf_token=...`), and strings with the shape of a well-known token.
"""

import logging
import os
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

# Shorter values (PASSWORD=no) would blank ordinary words and numbers out of every text.
MIN_SECRET_CHARS = 6

_SECRET_NAME = (
    r"(?:passwords?|passwd|passphrase|secrets?|secret[_-]?key|api[_-]?keys?|access[_-]?key(?:[_-]?id)?"
    r"|private[_-]?key|credentials?|authorization"
    r"|(?:hf|hub|auth|access|api|bearer|refresh|session|security|id|git|github|gitlab|wandb)[_-]?token)"
)
_SECRET_KEY = re.compile(rf"(?:^|.*[_.\-/]){_SECRET_NAME}$|(?:^|.*[./])token$", re.IGNORECASE)
# Tokenizer settings also end in "_token" (eos_token), so names in the environment, where nobody
# keeps those, are judged by a wider pattern than names in a config.
_SECRET_VARIABLE = re.compile(
    r"^AWS_.*(?:KEY|TOKEN|SECRET).*$"
    r"|(?:^|.*_)(?:TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS|PAT"
    r"|APIKEY|(?:API|ACCESS|SECRET|PRIVATE|AUTH|SIGNING|ENCRYPTION)_KEY(?:_ID)?)$",
    re.IGNORECASE,
)

_SHAPES = (
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_\-]{16,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\bsk-[A-Za-z0-9_\-]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9\-]{10,}",
    r"\bwandb_v\d_[A-Za-z0-9_\-]{16,}",
    r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",
)
# Each with words, in lower case, without one of which it cannot match: looking for a word is many
# times faster than the pattern, and most texts hold none.
_AFTER_NAME: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    # user:password@ of a URL; what follows a "?" is a query, where an e-mail address is no secret.
    (("://",), re.compile(r"(://)[^/?#\s@]{1,256}(?:@[^/?#\s@]{1,256})*(?=@)")),
    (
        ("bearer", "basic"),
        re.compile(r"(\b(?:bearer|basic)\s{1,3})[A-Za-z0-9+/=._~\-]{8,}", re.IGNORECASE),
    ),
    (("wandb",), re.compile(r"(\bwandb[^\n]{0,40}?)\b[0-9a-f]{40}\b", re.IGNORECASE)),
    (("token=",), re.compile(r"((?<![A-Za-z_])token=)[A-Za-z0-9_\-.]{8,}", re.IGNORECASE)),
    (
        ("pass", "secret", "key", "credential", "authorization", "token"),
        re.compile(
            rf"({_SECRET_NAME}[\"']?\s{{0,3}}[=:]\s{{0,3}}[\"']?)"
            r"(?!\[redacted\]|(?:bearer|basic)\s|null\b|none\b)"
            # In quotes, spaces and commas are part of it.
            r"(?:(?<=\")[^\"\n]{3,}|(?<=')[^'\n]{3,}|[^\s\"',;&}\])]{3,})",
            re.IGNORECASE,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces secrets by `[redacted]`. Knows the secrets' values; never show it or store it."""

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, values: tuple[str, ...]) -> "Redactor":
        """Make a redactor for these very values and for all well-known shapes."""
        # Longest first: a secret may begin with another one.
        known = [re.escape(value) for value in sorted(values, key=len, reverse=True)]
        return cls(re.compile("|".join([*known, *_SHAPES])))

    def __repr__(self) -> str:
        return "Redactor()"

    def redact(self, text: str) -> str:
        text = self.pattern.sub(REDACTED, text)
        lower = text.lower()
        for words, pattern in _AFTER_NAME:
            if any(word in lower for word in words):
                text = pattern.sub(rf"\1{REDACTED}", text)
        return text

    def redact_json(self, value: Any) -> Any:
        """Redact every string of a JSON value, keys too; the value behind a secret's name whole."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {
                self.redact(str(key)): REDACTED
                if isinstance(item, str) and item and _SECRET_KEY.match(str(key))
                else self.redact_json(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.redact_json(item) for item in value]
        return value


def redact(text: str) -> str:
    """Replace what is, or looks like, a secret in `text`."""
    return current_redactor().redact(text)


def redact_json(value: Any) -> Any:
    """Redact a JSON value (dicts, lists, strings); numbers, booleans and null stay as they are."""
    return current_redactor().redact_json(value)


def current_redactor() -> Redactor:
    """The redactor for the environment as it is now; made again only when its secrets change."""
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= MIN_SECRET_CHARS and _SECRET_VARIABLE.match(name)
    }
    return _redactor(tuple(sorted(values)))


_redactor = lru_cache(maxsize=4)(Redactor.of)


class RedactingFilter(logging.Filter):
    """Redacts the message and the traceback of every record; add it to handlers, not to loggers.

    A filter on a logger does not see the records of its children; one on a handler sees all that
    the handler writes.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Raised here it would reach whoever logs; the handler cannot format it either.
            message = f"{record.msg} (with arguments that do not fit: {record.args})"
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[0] and not record.exc_text:
            # Formatters use exc_text where it is set, so the raw traceback is never rendered.
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True
