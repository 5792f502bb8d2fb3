"""Make the benchmarks' scripts importable, as they are for one another when they are run."""

import sys
from pathlib import Path

for name in ("ablation", "scaling"):
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / name))
