"""Share of text predictions that equal the reference but for case, width and white space."""

import unicodedata

from exp.metrics.metric import TEXT, rate
from exp.metrics.row import RowScore


def normalise_text(text: str) -> str:
    """Fold compatibility forms (NFKC), case, and runs of white space."""
    return " ".join(
        unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split()
    )


def _matches(row: RowScore) -> bool:
    return normalise_text(row.text) == normalise_text(str(row.reference))


TEXT_MATCH = rate("text_match", _matches, TEXT)
