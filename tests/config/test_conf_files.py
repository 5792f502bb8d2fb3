"""Promises about the YAML files: they compose, they say what they are for, they repeat nothing."""

from functools import cache

import pytest

from exp.config.fields import find
from exp.config.groups import main_folder, open_library, read_yaml, sections
from exp.config.plain import to_plain
from exp.config.preflight import preflight
from exp.config.schema import PRIMARIES, TrainConfig

FILES = sorted(main_folder().rglob("*.yaml"))
NEEDED = {"predict": ("input=a.jsonl", "output=b.jsonl"), "bench": ("what=training",)}


@cache
def leaves(path):
    """The settings of a file: dotted key -> value, below the file's group."""

    def walk(content, prefix):
        for key, value in content.items():
            dotted = f"{prefix}{key}"
            field = find(TrainConfig, dotted)
            if isinstance(value, dict) and (field is None or field.is_section):
                yield from walk(value, f"{dotted}.")
            else:
                yield dotted, value

    content = {key: value for key, value in read_yaml(path).items() if key != "defaults"}
    group = path.parent.name
    return dict(walk(content, f"{group}." if group in sections("train") else ""))


def rounds(verb):
    """Choices for every group at once, so that all choices of all groups come up."""
    groups = {g: list(open_library().choices[g]) for g in open_library().groups(verb)}
    groups.pop("experiment", None)
    for turn in range(max(map(len, groups.values()))):
        yield [f"{group}={names[turn % len(names)]}" for group, names in groups.items()]


# `train` has the groups of the others, but for bench's own: it stands for them where time is short.
@pytest.mark.parametrize(
    ("verb", "choices"),
    [
        pytest.param(verb, choices, marks=() if verb == "train" else pytest.mark.thorough)
        for verb in PRIMARIES
        for choices in rounds(verb)
    ],
)
def test_every_choice_composes_with_every_verb_that_has_its_group(verb, choices):
    checked = preflight(verb, [*choices, *NEEDED.get(verb, ())], open_library())
    config = checked.trials[0].config
    assert not hasattr(config, "model") or f"model={config.model.name}" in choices
    assert not hasattr(config, "hardware") or f"hardware={config.hardware.name}" in choices


@pytest.mark.parametrize("verb", PRIMARIES)
def test_a_verb_offers_a_group_for_each_of_its_sections(verb):
    groups = set(open_library().groups(verb)) - {"experiment"}
    assert groups == set(sections(verb))


@pytest.mark.parametrize("verb", PRIMARIES)
def test_what_is_chosen_by_default_gives_no_warning(verb):
    checked = preflight(verb, NEEDED.get(verb, ()), open_library())
    assert checked.trials[0].warnings == ()


@pytest.mark.parametrize("choice", sorted(open_library().choices["experiment"]))
def test_an_experiment_sets_nothing_that_has_no_effect(choice):
    checked = preflight("train", [f"experiment={choice}"], open_library())
    assert checked.trials[0].warnings == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_says_what_it_is_for_and_repeats_no_default(path):
    lines = path.read_text().splitlines()
    comments = [line for line in lines[:2] if line.startswith("# ") and "@package" not in line]
    assert len(comments) == 1
    for key, value in leaves(path).items():
        field = find(TrainConfig, key)
        assert field is not None, key
        assert value != to_plain(field.default) or field.is_mapping, f"{key} repeats its default"
