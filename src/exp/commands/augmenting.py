"""What training and `exp augment` share: the augmenter of a task."""

from collections.abc import Mapping

from exp.config.schema import AugmentationConfig, OutputFormat
from exp.data.augmentation.canon import learn_canon
from exp.data.augmentation.chain import Augmenter, make_augmenter
from exp.data.augmentation.lexicon import load_lexicon
from exp.data.free_fields import learn_free_fields
from exp.data.task import Task


def open_augmenter(
    task: Task,
    config: AugmentationConfig,
    seed: int,
    paraphrases: Mapping[str, tuple[str, ...]] | None = None,
) -> Augmenter | None:
    """Read the lexicon, and learn from the training rows what the task does with case, accents and
    names.

    Args:
        task: The task, with its training rows.
        config: The settings.
        seed: Of all random choices.
        paraphrases: Text -> its back-translations, where these are wanted.

    Returns:
        None where every row comes as it is.

    Raises:
        ConfigError: There is no lexicon for the task's language.
        DataError: The user's lexicon is none.
    """
    if config.factor == 1:
        return None
    lexicon = load_lexicon(task.language, config.lexicon)
    canon = learn_canon(task.split("train"), task.output_format)
    renames = config.renaming > 0 and task.output_format is OutputFormat.json
    free_fields = learn_free_fields(task.split("train")) if renames else frozenset()
    return make_augmenter(
        config, lexicon, task.output_format, canon, seed, paraphrases, free_fields
    )
