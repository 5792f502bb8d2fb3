"""Back-translations as a strategy among the others, under the same check."""

import pickle

import pytest

from exp.config.schema import AugmentationConfig, OutputFormat, StrategiesConfig
from exp.data.augmentation.back_translation import BACK_TRANSLATION
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.chain import MAX_DRAWS, make_augmenter
from exp.data.augmentation.lexicon import load_lexicon
from exp.records import Example

TEXT = "please send 20 nails on monday"
EXAMPLE = Example("a", TEXT, {"product": "nails", "quantity": 20})
GOOD = ("kindly send 20 nails on monday", "20 nails on monday, please", "send twenty nails monday")
LOST = (
    "please send 20 screws on monday",
    "please send 30 nails on monday",
    "please send 20 boxes of 5 nails on monday",
    "please send the nails on monday",
)


@pytest.fixture
def translating():
    def build(paraphrases, **weights):
        strategies = StrategiesConfig(**{BACK_TRANSLATION: 1.0, **weights})
        config = AugmentationConfig(factor=2, strategies=strategies)
        lexicon = load_lexicon("en", None)
        return make_augmenter(config, lexicon, OutputFormat.json, Canon(), 0, paraphrases)

    return build


def test_every_paraphrase_comes_up_in_some_epoch_and_none_twice_in_one(translating):
    of = translating({TEXT: GOOD})
    epochs = [[v.text for v in of.variants(EXAMPLE, epoch, 3)] for epoch in range(8)]
    assert all(sorted(made) == sorted(GOOD) for made in epochs)
    assert len({tuple(made) for made in epochs}) > 2
    assert [v.text for v in translating({TEXT: GOOD}).variants(EXAMPLE, 3, 3)] == epochs[3]


@pytest.mark.parametrize("lost", LOST)
def test_a_paraphrase_that_lost_something_of_the_answer_is_rejected_and_counted(translating, lost):
    (variant,) = translating({TEXT: (lost,)}).variants(EXAMPLE, 0, 1)
    assert (variant.text, variant.num_rejected) == (None, MAX_DRAWS)


def test_rejected_paraphrases_leave_the_others_to_be_drawn(translating):
    of = translating({TEXT: LOST + GOOD})
    made = [of.variants(EXAMPLE, epoch, 1)[0] for epoch in range(40)]
    assert {variant.text for variant in made} == set(GOOD)
    assert sum(variant.num_rejected for variant in made) > 10


def test_it_comes_first_and_the_other_strategies_change_what_it_made(translating):
    of = translating({TEXT: GOOD[:1]}, letter_case=1.0)
    made = [of.variants(EXAMPLE, epoch, 1)[0] for epoch in range(40)]
    both = [variant for variant in made if len(variant.strategies) == 2]
    assert both
    for variant in both:
        assert variant.strategies == (BACK_TRANSLATION, "letter_case")
        assert variant.text != GOOD[0]
        assert variant.text.lower() == GOOD[0]


def test_a_text_without_paraphrases_leaves_the_turn_to_the_others(translating):
    of = translating({}, letter_case=1.0)
    made = [of.variants(EXAMPLE, epoch, 1)[0] for epoch in range(10)]
    assert {variant.strategies for variant in made} == {("letter_case",)}


def test_variants_without_it_are_what_they_were(translating):
    weights = {BACK_TRANSLATION: 0.0, "letter_case": 1.0, "typos": 1.0}
    without, unused = translating(None, **weights), translating({TEXT: GOOD}, **weights)
    assert without.variants(EXAMPLE, 0, 3) == unused.variants(EXAMPLE, 0, 3)


def test_a_run_goes_on_only_with_the_same_paraphrases(translating):
    one, other = translating({TEXT: GOOD}), translating({TEXT: GOOD[:2]})
    assert one.digest == translating({TEXT: GOOD}).digest
    assert len({one.digest, other.digest, translating(None).digest}) == 3


def test_worker_processes_can_be_given_it(translating):
    of = translating({TEXT: GOOD})
    assert pickle.loads(pickle.dumps(of)).variants(EXAMPLE, 0, 3) == of.variants(EXAMPLE, 0, 3)
