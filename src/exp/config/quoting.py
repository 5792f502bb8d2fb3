"""Values written so that Hydra's grammar and a shell take them, whatever is in them."""

import re
import shlex

PLAIN = re.compile(r"[\w./+-]*", re.ASCII)


def quoted(text: str) -> str:
    """Text as Hydra's grammar takes it whatever is in it."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def typed(key: str, value: str) -> str:
    """A setting as it can be typed into a shell, whatever is in its value."""
    if PLAIN.fullmatch(value):
        return f"{key}={value}"
    text = f"{key}={quoted(value)}"
    return shlex.quote(text) if re.search(r'["$`\\!]', value) else f'"{text}"'
