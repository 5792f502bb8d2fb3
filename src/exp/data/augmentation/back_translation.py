"""The whole text in other words: paraphrases that were made before training, drawn from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from exp.data.augmentation.passage import Passage

BACK_TRANSLATION = "back_translation"


@dataclass(frozen=True)
class BackTranslation:
    """A strategy that gives one of a text's paraphrases, or the text where it has none.

    Attributes:
        paraphrases: Text -> its paraphrases.
    """

    paraphrases: Mapping[str, tuple[str, ...]]

    @property
    def digest(self) -> str:
        """Changes with any paraphrase, as other devices and versions may make others."""
        content = json.dumps(sorted(self.paraphrases.items()))
        return hashlib.sha256(content.encode()).hexdigest()

    def __call__(self, passage: Passage, rng: Random, strength: float) -> str:
        found = self.paraphrases.get(passage.text)
        return rng.choice(found) if found else passage.text
