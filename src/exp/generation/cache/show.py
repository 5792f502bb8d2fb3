"""The inventory of the prediction cache on the console: a table, or plain lines when piped."""

import sys
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exp.generation.cache.maintenance import Inventory


def show_inventory(inventory: Inventory) -> None:
    facts = {
        "path": str(inventory.path),
        "size": f"{inventory.size_bytes / 2**20:,.1f} MiB",
        "predictions": f"{inventory.count:,}",
        "oldest": _date(inventory.oldest),
        "newest": _date(inventory.newest),
        "set aside": f"{len(inventory.set_aside):,} damaged files",
    }
    rows = [
        (group.label or "-", group.base_weights[:12], (group.adapter or "none")[:12], group.count)
        for group in inventory.groups
    ]
    if not sys.stdout.isatty():
        for name, fact in facts.items():
            print(name, fact, sep="\t")
        for row in rows:
            print("group", *row, sep="\t")
        return
    table = Table("what", "base weights", "adapter")
    table.add_column("predictions", justify="right")
    for label, base, adapter, count in rows:
        table.add_row(Text(label), base, adapter, f"{count:,}")
    console = Console()
    for name, fact in facts.items():
        console.print(Text(f"{name:12}{fact}"), soft_wrap=True)
    console.print(table)


def _date(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
