"""Shell completion: `eval "$(exp -sc install=bash)"`; the shell then asks `exp -sc query=bash`."""

import os
from collections.abc import Sequence

from exp.config.groups import open_library
from exp.config.schema import PRIMARIES


def complete(words: Sequence[str], verbs: Sequence[str]) -> int:
    """Complete verbs here; let Hydra complete groups, choices and settings behind a verb."""
    from exp.config.launch import compose

    line = os.environ.get("COMP_LINE", "").split(" ")
    asked = any(word.startswith("query=") for word in words)
    if asked and len(line) < 3:
        print("\n".join(verb for verb in verbs if verb.startswith("".join(line[1:]))))
        return 0
    verb = line[1] if asked else "train"
    if verb in PRIMARIES:
        if asked:
            # Hydra reads what was typed from here, and knows nothing of verbs.
            os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
        compose(verb, open_library(), [word for word in words if word not in verbs], [])
    return 0
