"""The engine against transformers' generate, one row at a time."""

import random
from functools import cache

import pytest
import torch

from exp.generation.drafting import Drafter
from exp.generation.engine import Engine
from exp.generation.row import Completion
from exp.generation.slots import bytes_per_token, rows_in_memory
from exp.generation.template import count_continuations

KINDS = [
    *("llama", "gemma3"),
    *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("qwen3", "gemma2")),
]
STOP_IDS = (7, 8, 9)
MAX_NEW_TOKENS = 14
NEAR_TIE = 1e-4

PREFIX = tuple(random.Random(1).choices(range(10, 61), k=24))


def prompts_of(number, prefix=PREFIX):
    source = random.Random(2)
    return [
        (*prefix, *source.choices(range(10, 61), k=source.randint(1, 30))) for _ in range(number)
    ]


@pytest.fixture(scope="session")
def reference(build_model):
    """Completions of the first rows by transformers, one at a time; computed once per model."""

    @cache
    def one(kind, row, prefix):
        model, prompt = build_model_once(kind), prompts_of(row + 1, prefix)[row]
        produced = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=list(STOP_IDS),
            pad_token_id=STOP_IDS[0],
        )[0, len(prompt) :].tolist()
        if produced[-1] in STOP_IDS:
            return Completion(tuple(produced[:-1]), "stop")
        return Completion(tuple(produced), "length")

    build_model_once = cache(build_model)
    return lambda kind, number, prefix=PREFIX: [one(kind, row, prefix) for row in range(number)]


def run(model, prompts, slots=5, **options):
    found = {}
    options = {"max_new_tokens": MAX_NEW_TOKENS, "stop_ids": STOP_IDS} | options
    engine = Engine(model, num_slots=slots, **options)
    engine.generate(prompts, lambda row, completion: found.setdefault(row, []).append(completion))
    assert sorted(found) == list(range(len(prompts)))
    assert {len(each) for each in found.values()} <= {1}
    return [found[row][0] for row in range(len(prompts))], engine


def differences(model, prompts, expected, actual):
    """Rows that differ other than at a near tie of the two largest logits."""
    found = []
    for row, (prompt, one, other) in enumerate(zip(prompts, expected, actual, strict=True)):
        if one == other:
            continue
        pairs = zip(one.token_ids, other.token_ids, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
        ids = torch.tensor([[*prompt, *one.token_ids[:same]]])
        top = model(ids).logits[0, -1].topk(2).values
        if float(top[0] - top[1]) > NEAR_TIE:
            found.append((row, one, other))
    return found


@pytest.fixture
def check(build_model, reference):
    def check(kind, number, slots, drafting=False, shuffle=0, prefix=PREFIX, **options):
        model, prompts = build_model(kind), prompts_of(number, prefix)
        expected = reference(kind, number, prefix)
        order = random.Random(shuffle).sample(range(number), number)
        if drafting:
            template = count_continuations([(*one.token_ids, 7) for one in expected])
            options["drafter"] = Drafter(template)
        actual, engine = run(model, [prompts[row] for row in order], slots, **options)
        back = dict(zip(order, actual, strict=True))
        restored = [back[row] for row in range(number)]
        assert not differences(model, prompts, expected, restored)
        return engine

    return check


@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_are_those_of_one_row_at_a_time(check, kind, drafting):
    check(kind, 20, slots=5, drafting=drafting)


@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 5, 16])
def test_neither_batch_nor_order_nor_drafts_change_a_token(check, slots, drafting):
    check("llama", 20, slots, drafting, shuffle=slots)


@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("shortcuts", [(False, False), (False, True), (True, False)])
def test_neither_refill_nor_shared_prefix_changes_a_token(check, shortcuts, drafting):
    refill, share_prefix = shortcuts
    check("llama", 20, 5, drafting, refill=refill, share_prefix=share_prefix)


@pytest.mark.slow
@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 5, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_rows_are_those_of_one_row_at_a_time(check, kind, slots, drafting):
    check(kind, 200, slots, drafting, shuffle=slots)


def test_prompts_without_a_common_prefix_are_decoded(check):
    check("llama", 12, slots=4, prefix=())


def test_drafts_are_accepted_and_save_forwards(check):
    plain = check("llama", 24, slots=5)
    drafted = check("llama", 24, slots=5, drafting=True)
    assert drafted.work.accepted_tokens > 24
    assert drafted.work.forwards < plain.work.forwards


def test_refilling_saves_forwards(check):
    waiting = check("llama", 24, slots=5, refill=False)
    assert check("llama", 24, slots=5).work.forwards < waiting.work.forwards


def test_a_shared_prefix_is_computed_once_and_kept_for_the_next_call(build_model):
    prompts = prompts_of(6)
    model = build_model("llama")
    first, engine = run(model, prompts)
    own = sum(len(prompt) - len(PREFIX) for prompt in prompts)
    before = engine.work.computed_tokens
    assert before < own + len(PREFIX) + 6 * MAX_NEW_TOKENS
    again = {}
    engine.generate(prompts, again.__setitem__)
    assert engine.work.computed_tokens - before == before - len(PREFIX)
    assert [again[row] for row in range(6)] == first


def test_a_prefix_that_the_next_call_shares_in_part_is_cut(build_model, reference):
    model = build_model("llama")
    _, engine = run(model, prompts_of(6))
    others = prompts_of(6, PREFIX[:18])
    found = {}
    engine.generate(others, found.__setitem__)
    fresh, _ = run(model, others)
    assert [found[row] for row in range(6)] == fresh


@pytest.mark.parametrize("drafting", [False, True])
def test_long_prompts_are_computed_in_pieces(check, monkeypatch, drafting):
    monkeypatch.setattr("exp.generation.engine.PREFILL_TOKENS", 7)
    check("llama", 12, slots=4, drafting=drafting)


def test_logits_are_computed_in_pieces(check, monkeypatch):
    monkeypatch.setattr("exp.generation.engine.CPU_MOST_LOGITS", 3 * 61)
    check("llama", 12, slots=8, drafting=True)


def test_rows_at_the_limit_are_cut_and_flagged(build_model, reference):
    actual, _ = run(build_model("llama"), prompts_of(24), stop_ids=(60,), max_new_tokens=5)
    cut = [one for one in actual if one.finish_reason == "length"]
    assert cut
    assert {len(one.token_ids) for one in cut} == {5}
    assert all(len(one.token_ids) < 5 for one in actual if one.finish_reason == "stop")


def test_a_stop_token_at_the_limit_stops(build_model, reference):
    completions = reference("llama", 24)
    row = next(i for i, one in enumerate(completions) if one.finish_reason == "stop")
    length = len(completions[row].token_ids)
    actual, _ = run(build_model("llama"), [prompts_of(24)[row]], max_new_tokens=length + 1)
    assert actual[0].finish_reason == "stop"
    cut, _ = run(build_model("llama"), [prompts_of(24)[row]], max_new_tokens=max(1, length))
    assert cut[0].finish_reason == ("length" if length else "stop")


def test_a_generation_config_that_samples_changes_nothing(build_model, reference):
    model = build_model("llama")
    model.generation_config.do_sample = True
    model.generation_config.temperature = 50.0
    actual, _ = run(model, prompts_of(12))
    assert actual == reference("llama", 12)


def test_no_prompts_are_no_work(build_model):
    assert run(build_model("llama"), [])[0] == []


def test_the_models_attention_is_given_back(build_model):
    model = build_model("llama")
    run(model, prompts_of(2))
    assert model.config._attn_implementation == "sdpa"


def test_the_attention_is_given_back_after_an_error(build_model):
    model = build_model("llama")
    engine = Engine(model, max_new_tokens=3, stop_ids=STOP_IDS, num_slots=2)
    with pytest.raises(ZeroDivisionError):
        engine.generate(prompts_of(2), lambda row, completion: 1 // 0)
    assert model.config._attn_implementation == "sdpa"


def test_rows_side_by_side_are_as_many_as_free_memory_holds(build_model, monkeypatch):
    model = build_model("llama")
    row = 10 * bytes_per_token(model)
    monkeypatch.setattr(type(model), "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * row, 200 * row))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 90 * row)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * row)
    # 30 free on the device, and 70 that PyTorch keeps and uses for nothing; 0.7 of that.
    assert rows_in_memory(model, 10, most=80, share=0.7) == 70
    assert rows_in_memory(model, 10, most=8, share=0.7) == 8
    assert rows_in_memory(model, 10_000, most=80, share=0.7) == 1


def test_rows_on_a_cpu_are_as_many_as_asked_for(build_model):
    assert rows_in_memory(build_model("llama"), 10**15, most=80, share=0.7) == 80


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_rows(build_model):
    import resource

    model = build_model("llama")
    prompts = prompts_of(10_000)
    run(model, prompts[:500], slots=32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(model, prompts, slots=32)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB
