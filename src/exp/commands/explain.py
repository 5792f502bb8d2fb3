"""exp explain: what a setting means, its type and default, and the files that set it."""

from collections.abc import Sequence

from exp.config.explain import explain, overview
from exp.config.groups import open_library


def main(argv: Sequence[str]) -> int:
    """Explain each named setting, or list all sections."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    library = open_library()
    print("\n\n".join(explain(key.partition("=")[0], library) for key in argv))
    return 0
