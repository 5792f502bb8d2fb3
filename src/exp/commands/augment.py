"""`exp augment`: training rows, or one text, beside their variants and what made these."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from exp.commands.augmenting import open_augmenter
from exp.commands.paraphrasing import open_paraphrases
from exp.commands.subset import subset
from exp.config.resolve import Resolved
from exp.config.schema import AugmentConfig, OutputFormat
from exp.data.augmentation.canon import learn_canon
from exp.data.augmentation.chain import Augmenter, Variant, make_augmenter
from exp.data.augmentation.lexicon import load_lexicon
from exp.data.field_values import string_fields
from exp.data.output import encode_output
from exp.data.sources.strict_json import BadJson, parse_json
from exp.data.task import load_task
from exp.errors import ConfigError, DataError
from exp.records import Example, Json
from exp.report.console import print_next_steps, print_table

NONE = "(no further variant)"
BLANK = "\u2420"


def run(resolved: Resolved) -> int:
    """Show variants; nothing is written."""
    config: AugmentConfig = resolved.config
    strategies = config.augmentation.strategies
    on = [name for name in strategies.__dataclass_fields__ if getattr(strategies, name) > 0]
    if not on:
        raise ConfigError(
            "Every strategy has weight 0, so there are no variants.",
            where="augmentation.strategies",
            fix="augmentation=standard",
        )
    if config.text is None:
        _show_rows(config)
    else:
        _show_text(config, config.text, on)
    return 0


def _show_rows(config: AugmentConfig) -> None:
    task = load_task(config.task, ("train",))
    settings = replace(config.augmentation, factor=max(2, config.augmentation.factor))
    examples = subset(task.split("train"), config.n, config.seed)
    paraphrases = open_paraphrases([example.input for example in examples], settings)
    augmenter = open_augmenter(task, settings, config.seed, paraphrases)
    assert augmenter is not None
    rows, made = [], []
    for example in examples:
        variants = augmenter.variants(example, config.epoch, settings.factor - 1)
        rows += [(example.id, "(the row)", example.input), *_lines(variants)]
        made += variants
    print_table(("row", "made by", "text"), rows, title=f"{task.name}, epoch {config.epoch + 1}")
    _print_counts(made)


def _show_text(config: AugmentConfig, text: str, on: Sequence[str]) -> None:
    example = Example("text", text, _read_output(config))
    settings, output_format = config.augmentation, config.task.output_format
    lexicon = load_lexicon(config.task.language, settings.lexicon)
    # One example shows nothing of what the task does with case and accents; values keep theirs.
    canon = learn_canon([], output_format)
    augmenter: Augmenter = make_augmenter(
        settings,
        lexicon,
        output_format,
        canon,
        config.seed,
        open_paraphrases([text], settings),
        # Nor does it show which fields are of free choice.
        string_fields(example.output),
    )
    alone = [(name, augmenter.alone(example, name)) for name in on]
    together = augmenter.variants(example, config.epoch, max(1, settings.factor - 1))
    rows = [("(the text)", text), *((name, _shown(variant)) for name, variant in alone)]
    rows += [line[1:] for line in _lines(together)]
    print_table(("made by", "text"), rows, title="One strategy at a time, then several together")
    _print_counts([*(variant for _, variant in alone), *together])


def _lines(variants: Iterable[Variant]) -> list[tuple[str, str, str]]:
    return [("", ", ".join(v.strategies) or "-", _shown(v)) for v in variants]


def _shown(variant: Variant) -> str:
    """The text of a variant, with pictures of the blanks at its ends, which nobody would see."""
    if variant.text is None:
        return NONE
    text = variant.text.strip(" ")
    before, _, behind = variant.text.partition(text) if text else ("", "", "")
    shown = BLANK * len(before) + text + BLANK * len(behind)
    if variant.output is None:
        return shown
    return f"{shown}  ->  {encode_output(variant.output, OutputFormat.json)}"


def _read_output(config: AugmentConfig) -> Json:
    if config.output is None or config.task.output_format is OutputFormat.text:
        return config.output
    try:
        return parse_json(config.output)
    except BadJson as error:
        raise DataError(
            f"The output is not JSON: {error.reason}.",
            where="output",
            fix="""output='{"product": "nails", "quantity": 20}', or task.output_format=text""",
        ) from None


def _print_counts(variants: Sequence[Variant]) -> None:
    num_made = sum(variant.text is not None for variant in variants)
    rejected = sum(variant.num_rejected for variant in variants)
    print_next_steps(
        [
            f"{num_made} variants; {rejected} draws lost something of the answer and were drawn "
            f"anew; {len(variants) - num_made} times the text admits no further variant",
            "train on them: exp train augmentation=standard",
        ]
    )
