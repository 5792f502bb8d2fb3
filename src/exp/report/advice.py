"""What to try next, below the finding that it is for."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from exp.redaction import redact
from exp.report.visible import visible


def print_advice(finding: str, lines: Sequence[str], console: Console | None = None) -> None:
    """Print a finding, and what may mend it, the first thing to try first."""
    console = console or Console()
    soft = not console.is_terminal
    console.print()
    console.print(Text(visible(redact(finding)), style="bold"), soft_wrap=soft)
    for number, line in enumerate(lines, 1):
        text = Text(f"  {number}. {visible(redact(line))}")
        console.print(text, soft_wrap=soft, highlight=False)
