from tokenizers import Tokenizer, models

from exp.config.schema import GenerationConfig, Strategy
from exp.generation.settings import GenerationSettings, fold_tokens
from exp.generation.template import count_continuations


def test_tokens_that_differ_by_a_space_share_a_number():
    pieces = ["a", "\u0120a", "b", "\u2581a", "\u0120", "ab"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "a"))
    assert fold_tokens(tokenizer) == (0, 0, 2, 0, 4, 5)


def test_the_digest_of_drafting_says_what_is_drafted_from():
    config = GenerationConfig(max_new_tokens=4)
    template = count_continuations([(1, 2)] * 3)
    digests = [
        GenerationSettings(config, (2,), 4).drafting_digest,
        GenerationSettings(config, (2,), 4, template=template).drafting_digest,
        GenerationSettings(GenerationConfig(drafting=False), (2,), 4).drafting_digest,
    ]
    assert len(set(digests)) == 3
    assert digests[2] is None


def test_without_greedy_decoding_nothing_is_drafted():
    config = GenerationConfig(strategy=Strategy.sample)
    assert GenerationSettings(config, (2,), 4).drafting_digest is None
