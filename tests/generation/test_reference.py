import pytest
import torch

from exp.config.schema import GenerationConfig, Strategy
from exp.generation import reference
from exp.generation.cache.key import Request
from exp.generation.reference import generate_with_transformers
from exp.generation.row import Completion
from exp.generation.row_seed import row_seed
from exp.generation.settings import GenerationSettings
from exp.generation.slots import bytes_per_token

STOP_IDS = (7, 8)
PROMPTS = {"a": (11, 12, 13), "b": (20, 21, 22, 23, 24), "c": (30, 31), "d": (11, 12, 13)}


def decode(model, config, ids, num_slots=4, **options):
    settings = GenerationSettings(config, STOP_IDS, num_slots)
    requests = [Request(one, PROMPTS[one], row_seed(config.seed, one)) for one in ids]
    found = {}
    generate_with_transformers(model, requests, settings, found.__setitem__, **options)
    return {one: found[row] for row, one in enumerate(ids)}


SAMPLE = GenerationConfig(
    strategy=Strategy.sample, max_new_tokens=12, temperature=0.7, top_k=50, top_p=0.95
)


@pytest.mark.parametrize("ids", ["a", "dcba", "bd"])
@pytest.mark.thorough
def test_a_sampled_row_does_not_depend_on_the_rows_beside_it(build_model, ids):
    model = build_model("llama")
    together = decode(model, SAMPLE, "abcd")
    torch.manual_seed(99)
    assert decode(model, SAMPLE, ids).items() <= together.items()


def test_equal_prompts_are_sampled_from_seeds_of_their_own(build_model):
    found = decode(build_model("llama"), SAMPLE, "ad")
    assert found["a"] != found["d"]


def test_sampling_leaves_the_callers_random_state_alone(build_model):
    model = build_model("llama")
    before = torch.get_rng_state()
    decode(model, SAMPLE, "ab")
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_sample(build_model):
    other = GenerationConfig(**vars(SAMPLE) | {"seed": 1})
    model = build_model("llama")
    assert decode(model, SAMPLE, "abc") != decode(model, other, "abc")


def test_beams_come_back_in_order_without_repeated_ngrams(build_model):
    config = GenerationConfig(
        strategy=Strategy.beam, max_new_tokens=12, num_beams=3, no_repeat_ngram_size=2
    )
    model = build_model("llama")
    found = decode(model, config, "abcd")
    assert found == decode(model, config, "abcd", num_slots=1)
    for completion in found.values():
        pairs = list(zip(completion.token_ids, completion.token_ids[1:], strict=False))
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("beams", "num_rows"), [(1, 4), (2, 2), (4, 1)])
def test_a_batch_holds_as_many_beams_as_the_memory(build_model, monkeypatch, beams, num_rows):
    model = build_model("llama")
    token = bytes_per_token(model)
    longest = max(map(len, PROMPTS.values())) + 3
    sizes = []
    monkeypatch.setattr(reference, "MEMORY_SHARE", 1.0)
    monkeypatch.setattr(type(model), "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * longest * token, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)

    def batch(model, requests, options):
        sizes.append(len(requests))
        return [Completion((), "stop")] * len(requests)

    monkeypatch.setattr(reference, "_batch", batch)
    strategy = Strategy.greedy if beams == 1 else Strategy.beam
    config = GenerationConfig(strategy=strategy, max_new_tokens=3, num_beams=beams)
    decode(model, config, "abcd", num_slots=9)
    assert sizes == [num_rows] * (4 // num_rows)


def test_without_a_cache_the_tokens_are_the_same(build_model):
    config = GenerationConfig(max_new_tokens=12)
    model = build_model("qwen3")
    assert decode(model, config, "abc") == decode(model, config, "abc", key_value_cache=False)
