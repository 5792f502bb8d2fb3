"""Text from data, made safe to show: no character of it can command a terminal or a browser."""

import re

# C0 and C1 controls, DEL, marks that reorder text, separators that break lines, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, keep_lines: bool = False) -> str:
    """Replace control characters by their pictures (ESC by ␛), or by � where they have none.

    Args:
        text: Anything, lone surrogates included.
        keep_lines: Leave line feeds and tabs; otherwise a line feed becomes " ⏎ ", a tab a space.
    """

    def picture(match: re.Match[str]) -> str:
        char = match[0]
        if char in "\n\t":
            return char if keep_lines else {"\n": " ⏎ ", "\t": " "}[char]
        if char < " ":
            return chr(0x2400 + ord(char))
        return "␡" if char == "\x7f" else "\ufffd"

    return _UNSAFE.sub(picture, text.replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """Cut text to about `limit` characters, and say how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()}… (+{len(text) - limit:,} characters)"
