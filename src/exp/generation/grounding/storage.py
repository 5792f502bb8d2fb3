"""grounding.json of a run folder: the rules that its training rows taught."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from exp.data.augmentation.number_words import NumberWords
from exp.errors import CheckpointError
from exp.generation.grounding.choices import ChoiceRules
from exp.generation.grounding.inflection import Inflections
from exp.generation.grounding.numbers import NumberRules
from exp.generation.grounding.rules import GroundingRules, StringRules
from exp.publish import write_atomically


def write_grounding(path: Path, grounding: GroundingRules) -> None:
    """Write the rules as JSON."""
    write_atomically(path, json.dumps(grounding.to_plain(), sort_keys=True) + "\n")


def read_grounding(path: Path) -> GroundingRules:
    """Read what `write_grounding` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"What the run learned of where its answers come from cannot be read: {error!r}.",
            where=str(path),
            fix="generation.constrain=schema, or train again: older runs do not have it",
        ) from error


def _from_json(content: dict[str, Any]) -> GroundingRules:
    return GroundingRules(
        strings={tuple(path): _string_rules(plain) for path, plain in content["strings"]},
        numbers={
            tuple(path): NumberRules(
                plain["decimals"], tuple(plain["always"]), frozenset(plain.get("barring", ()))
            )
            for path, plain in content["numbers"]
        },
        # Runs of before there were rules for choices have none.
        choices={tuple(path): _choice_rules(plain) for path, plain in content.get("choices", ())},
        number_words=_number_words(content["number_words"]),
        left_free={tuple(path): share for path, share in content["left_free"]},
    )


def _string_rules(plain: dict[str, Any]) -> StringRules:
    return StringRules(
        inflections=_inflections(plain["inflections"]),
        linked=_inflections(plain["linked"]),
        links=frozenset(plain["links"]),
        longest=plain["longest"],
        joints=frozenset(plain["joints"]),
        never_last=frozenset(plain["never_last"]),
        always=tuple(plain["always"]),
    )


def _choice_rules(plain: dict[str, Any]) -> ChoiceRules:
    against = plain.get("against")  # nor did first rules say where a choice is needed
    return ChoiceRules(
        {choice: tuple(signs) for choice, signs in plain["signs"].items()},
        None if against is None else tuple(against),
    )


def _number_words(plain: dict[str, Any]) -> NumberWords:
    exact = {
        table: {word: Decimal(value) for word, value in plain[table].items()}
        for table in ("collectives", "fractions")
    }
    decimal_words = frozenset(plain["decimal_words"])
    return NumberWords(**{**plain, **exact, "decimal_words": decimal_words})


def _inflections(plain: dict[str, Any]) -> Inflections:
    rules = {
        ending: tuple((cut, put) for cut, put in found)
        for ending, found in plain.pop("rules").items()
    }
    accenting = [(cut, put) for cut, put in plain.pop("accenting")]
    accents = {
        ending: [tuple((place, letter) for place, letter in each) for each in found]
        for ending, found in plain.pop("accents").items()
    }
    return Inflections(rules=rules, accenting=accenting, accents=accents, **plain)
