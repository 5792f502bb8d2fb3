"""Write the shipped splits of orders_es: `python -m exp.data.tasks.orders_es.generate`.

Every row is a function of (SEED, split, row number) alone. Train and test share neither products
nor templates; validation speaks with the templates of train about products of its own. Number
words, units and currencies are language, not phrasing, and are common to all.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from exp.data.tasks.orders_es.message import write
from exp.data.tasks.orders_es.orders import canonical, sample_order

SEED = 20250301
NUM_ROWS = {"train": 1500, "validation": 200, "test": 300}


@dataclass(frozen=True)
class Row:
    """A shipped row, and how it came about, which is not shipped."""

    id: str
    input: str
    output: dict[str, Any]
    templates: frozenset[str]
    features: frozenset[str]

    def to_json(self) -> str:
        shipped = {"id": self.id, "input": self.input, "output": self.output}
        return json.dumps(shipped, ensure_ascii=False)


def generate(num_rows: dict[str, int] = NUM_ROWS, seed: int = SEED) -> dict[str, list[Row]]:
    """Make all splits. An input that is there already is made anew, so that none occurs twice."""
    seen: set[str] = set()
    return {
        split: [_unseen_row(split, number, seed, seen) for number in range(count)]
        for split, count in num_rows.items()
    }


def _unseen_row(split: str, number: int, seed: int, seen: set[str]) -> Row:
    attempt = 0
    while True:
        # A string seeds Random through SHA-512: the same in every process and on every platform.
        rng = Random(f"{seed}/{split}/{number}/{attempt}")
        order = sample_order(rng, split)
        message = write(rng, order, split)
        if message.text not in seen:
            seen.add(message.text)
            row_id = f"orders_es-{split}-{number + 1:04}"
            return Row(row_id, message.text, canonical(order), message.templates, message.features)
        attempt += 1


def main() -> None:
    """Rewrite the shipped files beside this module."""
    folder = Path(str(files(__package__)))
    for split, rows in generate().items():
        text = "".join(f"{row.to_json()}\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        print(f"{split}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
