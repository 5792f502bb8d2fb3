"""Easy examples first: a pacing function says how large a share of an epoch may come by when.

Every example still comes exactly as often per epoch as without. An example that is not yet
available comes only where the epoch has nothing else left, the easiest of those first. So exposure
is the same for all, order alone differs, and no row is left out of a short run. Once all are
available, the order is the plain shuffle.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exp.config.schema import Pacing


@dataclass(frozen=True)
class Curriculum:
    """How difficult each example is, and how fast the difficult ones come in.

    Attributes:
        difficulty: (examples,) larger is harder; any unit, as only the order counts.
        pacing: Form of the rise of the available share, from `start` to 1.
        start: Share of the examples, the easiest, that is available at once, 0 to 1.
        end: Share of the whole training after which all are available, 0 to 1.

    Source:
        Platanios et al. 2019, Competence-based Curriculum Learning, for linear and root.
        https://arxiv.org/abs/1903.09848
    """

    difficulty: NDArray[np.float64]
    pacing: Pacing
    start: float
    end: float

    def available(self, progress: float) -> float:
        """Return the available share, given the share of the training that is done."""
        if progress >= self.end:
            return 1.0
        passed = progress / self.end
        if self.pacing is Pacing.step:
            return self.start
        if self.pacing is Pacing.linear:
            return self.start + (1 - self.start) * passed
        return float(np.sqrt(self.start**2 + (1 - self.start**2) * passed))

    def windows(
        self,
        members: NDArray[np.int64],
        size: int,
        progress: Callable[[int], float],
        random: np.random.Generator,
    ) -> Iterator[NDArray[np.int64]]:
        """Cut the examples of an epoch into windows, each drawn from what is available then.

        Args:
            members: The examples of the epoch; one that is there twice comes twice.
            size: Examples of a window; the last one may have fewer.
            progress: Number of examples of the epoch that went before -> share of the training.
            random: Breaks ties of difficulty, and draws.
        """
        members = random.permutation(members)
        members = members[np.argsort(self.difficulty[members], kind="stable")]
        # pool[:filled] is available and not yet drawn; members[:entered] have gone into it.
        pool = np.empty_like(members)
        filled = entered = 0
        for done in range(0, len(members), size):
            count = min(size, len(members) - done)
            share = self.available(progress(done))
            target = max(entered, done + count, int(np.ceil(share * len(members))))
            pool[filled : filled + target - entered] = members[entered:target]
            filled, entered = filled + target - entered, target
            drawn = random.choice(filled, count, replace=False)
            yield pool[drawn]
            filled -= count
            stay = np.setdiff1d(np.arange(filled, filled + count), drawn)
            pool[drawn[drawn < filled]] = pool[stay]
