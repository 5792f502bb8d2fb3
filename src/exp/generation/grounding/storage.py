"""grounding.json of a run folder: the rules that its training rows taught."""

import json
from pathlib import Path
from typing import Any

from exp.errors import CheckpointError
from exp.generation.grounding.inflection import Inflections
from exp.generation.grounding.rules import FieldRules, GroundingRules
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
            f"What the run learned of the words of its answers cannot be read: {error!r}.",
            where=str(path),
            fix="generation.constrain=schema, or train again: older runs do not have it",
        ) from error


def _from_json(content: dict[str, list[tuple[list[str], Any]]]) -> GroundingRules:
    fields = {}
    for path, plain in content["fields"]:
        fields[tuple(path)] = FieldRules(
            inflections=_inflections(plain["inflections"]),
            linked=_inflections(plain["linked"]),
            links=frozenset(plain["links"]),
            longest=plain["longest"],
            joints=frozenset(plain["joints"]),
            never_last=frozenset(plain["never_last"]),
            always=tuple(plain["always"]),
        )
    return GroundingRules(fields, {tuple(path): share for path, share in content["left_free"]})


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
