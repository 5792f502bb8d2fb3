"""A text as words and what stands between them."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# A letter may be followed by combining marks, which \w does not match.
_WORD = re.compile(r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*")


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters and digits. `folded` is its form without case and accents."""

    start: int
    end: int
    text: str
    folded: str


def split_words(text: str) -> tuple[Word, ...]:
    """Find the words of a text."""
    return tuple(
        Word(match.start(), match.end(), match[0], fold(match[0])) for match in _WORD.finditer(text)
    )


def gaps(text: str, words: tuple[Word, ...]) -> list[str]:
    """Return what stands before the first word, between words, and behind the last one."""
    ends = [0, *(word.end for word in words)]
    starts = [*(word.start for word in words), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def join(words: list[str], between: list[str]) -> str:
    """Put a text together again; `between` has one part more than `words`."""
    return (
        "".join(part for pair in zip(between, words, strict=False) for part in pair) + between[-1]
    )


@lru_cache(maxsize=1 << 16)
def fold(word: str) -> str:
    """Drop case and accents."""
    if word.isascii():
        return word.lower()
    return strip_accents(word).casefold()


def strip_accents(text: str, kept: str = "") -> str:
    """Drop combining marks, except from the letters in `kept`, as lower case."""
    if text.isascii():
        return text
    letters = unicodedata.normalize("NFC", text)
    return "".join(
        letter if letter.isascii() or letter.lower() in kept else _bare(letter)
        for letter in letters
    )


@lru_cache(maxsize=1 << 12)
def _bare(letter: str) -> str:
    plain = unicodedata.normalize("NFD", letter)
    return "".join(c for c in plain if not unicodedata.combining(c))
