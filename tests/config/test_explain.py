import pytest

from exp.config.explain import explain, overview, verb_help
from exp.config.fields import all_fields
from exp.config.groups import open_library
from exp.config.schema import PRIMARIES
from exp.errors import ConfigError


def test_a_setting_is_explained_with_meaning_type_default_and_files():
    text = explain("lora.r", open_library())
    assert "Rank of the update" in text
    assert "type:    a whole number" in text
    assert "default: 16" in text
    assert "conf/lora/baseline.yaml: 8" in text


def test_an_experiment_that_sets_a_key_is_listed():
    assert "conf/experiment/smoke.yaml: 4" in explain("training.steps", open_library())


def test_the_choices_of_a_setting_are_listed():
    text = explain("scheduler.kind", open_library())
    assert "one of cosine, linear, constant, wsd" in text
    assert "conf/scheduler/wsd.yaml: wsd" in text


def test_a_section_lists_its_choices_and_settings():
    text = explain("lora", open_library())
    assert "choices: all_linear, baseline, standard" in text
    assert "lora.r=16" in text


def test_a_setting_of_another_verb_is_found():
    assert "run folder" in explain("run", open_library())


def test_a_word_that_verbs_use_differently_is_explained_for_each():
    text = explain("output", open_library())
    assert "output (exp predict)\n  Where predictions go" in text
    assert "output (exp augment)\n  The answer to `text`" in text


def test_the_group_of_experiments_is_no_section_and_lists_its_choices():
    assert "choices: ablation, canonicalization_baseline" in explain("experiment", open_library())


def test_an_unknown_key_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match=r"the closest is lora\.r\."):
        explain("lora.rnk", open_library())


@pytest.mark.parametrize("verb", PRIMARIES)
def test_the_help_of_a_verb_lists_all_groups_choices_and_settings(verb):
    library = open_library()
    text = verb_help(verb, "Purpose.", library)
    words = set(text.replace(",", " ").replace("[", " ").replace("]", " ").split())
    for group in library.groups(verb):
        assert {group, *library.choices[group]} <= words
    for key, field in all_fields(PRIMARIES[verb]).items():
        assert field.is_section or f"  {key}" in text


def test_no_line_of_the_help_is_wider_than_a_terminal():
    text = verb_help("train", "Purpose.", open_library())
    lines = [*text.splitlines(), *overview().splitlines()]
    assert max(map(len, lines)) <= 100
