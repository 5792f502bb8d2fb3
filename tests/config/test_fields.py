import pytest

from exp.config.fields import all_fields, closest_key, find
from exp.config.schema import PRIMARIES, TrainConfig


@pytest.mark.parametrize("verb", PRIMARIES)
def test_every_setting_has_a_meaning(verb):
    silent = [key for key, field in all_fields(PRIMARIES[verb]).items() if len(field.doc) < 10]
    assert silent == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lora.rnk", "lora.r"),
        ("lora.rank", "lora.r"),
        ("lora.target_module", "lora.target_modules"),
        ("lr", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("batch_size", "training.batch_size"),
        ("trainig.batch_size", "training.batch_size"),
        ("task.fields.inputs", "task.fields.input"),
        ("sed", "seed"),
    ],
)
def test_a_mistyped_key_is_traced_to_the_meant_one(typed, meant):
    assert closest_key(TrainConfig, typed) == meant


def test_a_key_inside_a_free_mapping_belongs_to_the_mapping():
    assert find(TrainConfig, "lora.peft.bias").key == "lora.peft"
    assert find(TrainConfig, "lora.pefft.bias") is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora.r", "a whole number"),
        ("training.steps", "a whole number, or null"),
        ("lora.target_modules", "a list, like [a,b]"),
        ("scheduler.kind", "one of cosine, linear, constant, wsd"),
        ("cache.enabled", "true or false"),
    ],
)
def test_types_are_said_in_words(key, words):
    assert all_fields(TrainConfig)[key].type_words == words
