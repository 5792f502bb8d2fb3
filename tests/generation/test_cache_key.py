import dataclasses
import json

import pytest

from exp.config.schema import GenerationConfig
from exp.generation.cache.key import KeyContext, Request, prediction_key
from exp.generation.cache.store import PredictionCache
from exp.records import Prediction

CONTEXT = KeyContext(
    base_weights="a" * 64,
    adapter="b" * 64,
    quantization="none",
    dtype="bf16",
    attention="sdpa",
    device_class="cpu",
    strategy="greedy",
    max_new_tokens=64,
    stop_token_ids=(2, 7),
    temperature=1.0,
    top_k=None,
    top_p=0.9,
    repetition_penalty=1.0,
    num_beams=1,
    no_repeat_ngram_size=0,
    length_penalty=1.0,
    constraint=None,
    drafting="e" * 64,
    batch_policy="slots=8",
    tokenizer="c" * 64,
    code="d" * 64,
    torch="2.13.0",
    transformers="5.23.0",
)
REQUEST = Request("row", (1, 5, 2**31 - 1), seed=3)
FIELDS = [field.name for field in dataclasses.fields(KeyContext)]


def smallest_change(value):
    match value:
        case None:
            return 0
        case str():
            return value[:-1] + chr(ord(value[-1]) ^ 1)
        case int():
            return value + 1
        case float():
            return value + 1e-9
        case tuple():
            return (*value[:-1], value[-1] + 1)
    raise TypeError(value)


@pytest.fixture
def cache(tmp_path):
    with PredictionCache.open(tmp_path / "p.sqlite") as cache:
        cache.store(CONTEXT, [(REQUEST, Prediction("row", "text", "stop", 1, (4,)))])
        yield cache


def test_at_least_fifteen_fields_enter_the_key():
    assert len(FIELDS) >= 15


@pytest.mark.parametrize("field", FIELDS)
def test_any_field_changed_alone_is_a_miss(cache, field):
    changed = dataclasses.replace(CONTEXT, **{field: smallest_change(getattr(CONTEXT, field))})
    assert cache.lookup(CONTEXT, [REQUEST]).num_hits == 1
    assert cache.lookup(changed, [REQUEST]).num_misses == 1


@pytest.mark.parametrize("field", [f for f in FIELDS if isinstance(getattr(CONTEXT, f), str)])
def test_no_two_fields_can_stand_in_for_each_other(field):
    others = {name: getattr(CONTEXT, name) + "x" for name in FIELDS if name == field}
    moved = dataclasses.replace(CONTEXT, **others)
    assert json.loads(moved.preimage())[field] == others[field]
    assert moved.preimage() != CONTEXT.preimage()


@pytest.mark.parametrize(
    "changed",
    [
        Request("row", (1, 5, 2**31 - 2), seed=3),
        Request("row", (5, 1, 2**31 - 1), seed=3),
        Request("row", (1, 5, 2**31 - 1, 0), seed=3),
        Request("row", (1, 5), seed=3),
        Request("row", (), seed=3),
        Request("row", (1, 5, 2**31 - 1), seed=4),
        Request("row", (1, 5, 2**31 - 1), seed=0),
        Request("row", (1, 5, 2**31 - 1), seed=None),
    ],
)
def test_another_prompt_or_seed_is_a_miss(cache, changed):
    assert cache.lookup(CONTEXT, [changed]).num_misses == 1


def test_the_id_and_the_kind_of_sequence_do_not_matter(cache):
    found = cache.lookup(CONTEXT, [Request("other", list(REQUEST.prompt_ids), seed=3)])
    assert found.hits["other"] == Prediction("other", "text", "stop", 1, (4,), cached=True)


def test_no_seed_differs_from_seed_zero():
    assert Request("a", (1,), None).preimage() != Request("a", (1,), 0).preimage()


@pytest.mark.parametrize("bad", [(2**31,), (-(2**31) - 1,)])
def test_a_token_id_that_does_not_fit_is_refused(bad):
    with pytest.raises(OverflowError):
        Request("a", bad).preimage()


def test_the_preimage_has_one_form():
    assert CONTEXT.preimage() == dataclasses.replace(CONTEXT).preimage()
    assert list(json.loads(CONTEXT.preimage())) == sorted(FIELDS)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(CONTEXT, temperature=float("nan")).preimage()


def test_every_setting_of_generation_enters_the_key():
    # slots are part of the batch policy, the seed of each request; a constraint enters by content.
    elsewhere = {"slots", "seed", "constrain"}
    settings = {field.name for field in dataclasses.fields(GenerationConfig)} - elsewhere
    assert settings <= set(FIELDS)


def test_the_key_covers_every_bit_of_both_parts():
    parts = bytes(32), REQUEST.preimage()
    keys = {prediction_key(*parts)}
    for part in (0, 1):
        for bit in range(8 * len(parts[part])):
            flipped = bytearray(parts[part])
            flipped[bit // 8] ^= 1 << bit % 8
            keys.add(prediction_key(*(bytes(flipped) if i == part else parts[i] for i in (0, 1))))
    assert len(keys) == 1 + 8 * (len(parts[0]) + len(parts[1]))
