from dataclasses import dataclass, fields, replace

import pytest

from exp.config.schema import GenerationConfig
from exp.generation.cache.key import KeyContext
from exp.generation.predictor import Predictor
from exp.generation.settings import GenerationSettings
from exp.records import Example

CONTEXT = KeyContext(**{field.name: "" for field in fields(KeyContext)})
HEAD = tuple(range(20, 40))


@dataclass(frozen=True)
class NumberRenderer:
    """Inputs and completions are numbers with spaces between them."""

    def render_prompts(self, inputs):
        return [(*HEAD, *map(int, text.split())) for text in inputs]

    def decode(self, token_ids):
        return " ".join(map(str, token_ids))


EXAMPLES = [Example(str(row), f"{40 + row} {41 + row % 7}") for row in range(9)]


@pytest.fixture
def predictor():
    settings = GenerationSettings(GenerationConfig(max_new_tokens=6), (7, 8), num_slots=4)
    return Predictor(NumberRenderer(), settings)


def test_predictions_come_back_in_the_order_of_the_examples(predictor, build_model):
    model = build_model("llama")
    seen = []
    forward = predictor.predict(EXAMPLES, lambda: model, seen.append)
    backward = predictor.predict(EXAMPLES[::-1], lambda: model)
    assert [one.id for one in forward] == [one.id for one in EXAMPLES]
    assert forward == backward[::-1]
    assert sum(seen) == len(EXAMPLES)


def test_without_a_context_each_call_sees_the_weights_of_its_time(predictor, build_model):
    model = build_model("llama")
    before = predictor.predict(EXAMPLES, lambda: model)
    for parameter in model.parameters():
        parameter.mul_(-0.7)
    changed = predictor.predict(EXAMPLES, lambda: model)
    assert changed != before
    fresh = replace(predictor)
    assert fresh.predict(EXAMPLES, lambda: model) == changed


def test_with_a_context_model_and_prefix_are_kept_for_the_next_call(predictor, build_model):
    kept = replace(predictor, context=CONTEXT)
    loads = []

    def load():
        loads.append(1)
        return build_model("llama")

    first = kept.predict(EXAMPLES[:5], load)
    second = kept.predict(EXAMPLES[5:], load)
    assert loads == [1]
    assert [*first, *second] == predictor.predict(EXAMPLES, lambda: build_model("llama"))
