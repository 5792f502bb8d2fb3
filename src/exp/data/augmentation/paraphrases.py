"""Paraphrases of lines, kept in a file as they are made, and put together to texts.

Each line of the file is one line of text with its paraphrases. Lines are only ever added, so an
interrupted preparation loses what it was at, and nothing else.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_LINE = re.compile(r"^([ \t]*(?:[-*\u2022\u00b7\u2013][ \t]+)?)(.*?)([ \t\r]*)$", re.MULTILINE)
"""What stands before a line (a bullet), the line, and what stands behind it."""


def lines_of(texts: Sequence[str]) -> list[str]:
    """List the distinct lines of texts that say something, without blanks and bullets."""
    found = (match[2] for text in texts for match in _LINE.finditer(text))
    return [line for line in dict.fromkeys(found) if any(map(str.isalpha, line))]


def compose(text: str, of_line: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Put paraphrases of a text together from those of its lines; the layout stays.

    Number k has the k-th paraphrase of every line; a line with fewer begins anew, and one without
    any stays as it is.
    """

    def rewritten(number: int) -> str:
        def line(match: re.Match[str]) -> str:
            found = of_line.get(match[2])
            return match[1] + (found[number % len(found)] if found else match[2]) + match[3]

        return _LINE.sub(line, text)

    counts = [len(of_line.get(match[2], ())) for match in _LINE.finditer(text)]
    made = dict.fromkeys(rewritten(number) for number in range(max(counts, default=0)))
    return tuple(paraphrase for paraphrase in made if paraphrase != text)


def read_paraphrases(path: Path) -> dict[str, tuple[str, ...]]:
    """Read what was kept so far: line -> its paraphrases."""
    return dict(_read(path)) if path.is_file() else {}


def add_paraphrases(path: Path, made: Mapping[str, Sequence[str]]) -> None:
    """Keep paraphrases of further lines, on the disk when this returns."""
    content = "".join(f"{json.dumps([line, *found])}\n" for line, found in made.items())
    with path.open("ab") as file:
        # A killed writer may have left half a line; the break keeps it apart from what follows.
        file.write(b"\n" + content.encode())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    with path.open("rb") as file:
        for row in file:
            try:
                line, *found = json.loads(row)
            except ValueError:
                continue  # half a line: it is made again
            yield line, tuple(found)
