import json
import random

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from exp.config.schema import Notation, OutputFormat
from exp.data.notation import open_writing
from exp.data.output import compile_schema, encode_output, parse_output, schema_errors
from exp.errors import ConfigError, ModelError
from exp.generation.constraint import Constraint
from exp.generation.drafting import Drafter
from exp.generation.engine import Engine

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 4},
        "sizes": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 99},
            "maxItems": 2,
        },
        "kind": {"enum": ["big", "small", "ñandú"]},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
END = 0


@pytest.fixture(scope="module")
def constraint(json_tokenizer):
    return Constraint(SCHEMA, json_tokenizer, (END,))


@pytest.fixture(scope="module")
def complete(build_model, json_tokenizer, constraint):
    # The vocabulary is padded, as those of many models are: the last logits have no token.
    model = build_model("llama", vocab_size=json_tokenizer.get_vocab_size() + 11)
    source = random.Random(0)
    prompts = [(*[5] * 20, *source.choices(range(1, 250), k=12)) for _ in range(40)]

    def complete(max_new_tokens=60, **options):
        found = {}
        options = {"constraint": constraint, "num_slots": 7} | options
        engine = Engine(model, max_new_tokens=max_new_tokens, stop_ids=(END,), **options)
        engine.generate(prompts, found.__setitem__)
        return [found[row] for row in range(len(prompts))], engine

    return complete


def test_a_model_with_random_weights_writes_what_the_schema_admits(complete, json_tokenizer):
    completions, engine = complete()
    validator = compile_schema(SCHEMA)
    stopped = [one for one in completions if one.finish_reason == "stop"]
    assert len(stopped) > 20
    for one in stopped:
        text = json_tokenizer.decode(list(one.token_ids))
        value, failure = parse_output(text)
        assert failure is None, text
        assert not schema_errors(value, validator)
    assert engine.work.forced_tokens > 0


@pytest.mark.thorough
def test_without_the_constraint_the_same_model_writes_no_json(complete, json_tokenizer):
    completions, _ = complete(constraint=None)
    validator = compile_schema(SCHEMA)
    values = [parse_output(json_tokenizer.decode(list(one.token_ids)))[0] for one in completions]
    assert [value for value in values if not schema_errors(value, validator)] == []


def test_cut_rows_are_flagged_and_keep_to_the_limit(complete, json_tokenizer):
    completions, _ = complete(max_new_tokens=9)
    cut = [one for one in completions if one.finish_reason == "length"]
    assert cut
    assert {len(one.token_ids) for one in cut} == {9}
    for one in completions:
        text = json_tokenizer.decode(list(one.token_ids))
        assert (parse_output(text)[1] is None) == (one.finish_reason == "stop")


@pytest.mark.parametrize("num_slots", [pytest.param(1, marks=pytest.mark.thorough), 16])
def test_neither_drafts_nor_slots_change_a_constrained_token(complete, num_slots):
    expected, _ = complete()
    actual, _ = complete(drafter=Drafter(), num_slots=num_slots)
    assert actual == expected


def test_each_choice_is_the_likeliest_admitted_token(build_model, json_tokenizer, constraint):
    """Against a plain loop that masks every step's logits."""
    model = build_model("llama", vocab_size=json_tokenizer.get_vocab_size())
    prompt = [5, 6, 7, 8]
    guide, ids = constraint.guide(), list(prompt)
    ids += guide.forced()
    while not guide.complete and len(ids) < len(prompt) + 40:
        logits = model(torch.tensor([ids])).logits[0, -1]
        token = int(
            logits.masked_fill(~torch.from_numpy(guide.admitted())[: len(logits)], -1e9).argmax()
        )
        if token == END:
            break
        ids += [token, *guide.take(token)]
    found = []
    engine = Engine(model, max_new_tokens=40, stop_ids=(END,), num_slots=1, constraint=constraint)
    engine.generate([prompt], lambda row, completion: found.append(completion))
    assert list(found[0].token_ids) == ids[len(prompt) :][:40]


def test_the_form_that_training_writes_is_admitted(json_tokenizer, constraint):
    value = {"name": 'a"\\', "sizes": [1, 20], "kind": "ñandú"}
    text = encode_output(value, OutputFormat.json, SCHEMA)
    guide = constraint.guide()
    for token in json_tokenizer.encode(text, add_special_tokens=False).ids:
        assert guide.admits(token)
        guide._matcher.consume_token(token)
    assert guide.complete


@pytest.mark.parametrize(
    "output",
    [
        {"name": "ñ", "kind": "ñandú"},
        {"name": "a b", "sizes": [0, 99], "kind": "big"},
        {"name": "abcd", "sizes": [], "kind": "small"},
    ],
)
def test_the_form_of_values_by_position_is_admitted(json_tokenizer, output):
    writing = open_writing(Notation.positional, OutputFormat.json, SCHEMA)
    guide = Constraint(writing.grammar, json_tokenizer, (END,)).guide()
    for token in json_tokenizer.encode(writing.write(output), add_special_tokens=False).ids:
        assert guide.admits(token)
        guide._matcher.consume_token(token)
    assert guide.complete


def test_by_position_what_a_schema_says_elsewhere_is_held_to(json_tokenizer):
    schema = {
        "type": "object",
        "properties": {"parts": {"type": "array", "items": {"$ref": "#/$defs/part of it"}}},
        "additionalProperties": False,
        "$defs": {"part of it": SCHEMA},
    }
    writing = open_writing(Notation.positional, OutputFormat.json, schema)
    guide = Constraint(writing.grammar, json_tokenizer, (END,)).guide()
    written = writing.write({"parts": [{"name": "a", "kind": "big"}]})
    ids = json_tokenizer.encode(written, add_special_tokens=False).ids
    assert guide._matcher.try_consume_tokens(ids) == len(ids)


@pytest.mark.parametrize("text", ['[" abcde",null," big"]', '[" a"]', '[" a",[1,2,3]," big"]'])
def test_other_values_by_position_are_refused(json_tokenizer, text):
    grammar = open_writing(Notation.positional, OutputFormat.json, SCHEMA).grammar
    guide = Constraint(grammar, json_tokenizer, (END,)).guide()
    ids = json_tokenizer.encode(text, add_special_tokens=False).ids
    assert guide._matcher.try_consume_tokens(ids) < len(ids)


@pytest.mark.parametrize(
    "text", ['{ "name"', '{"kind"', '{"name": "a"', '{"name":""', '{"name":"abcde', "[", "\n{"]
)
def test_free_space_other_order_and_wrong_values_are_refused(json_tokenizer, constraint, text):
    guide = constraint.guide()
    refused = False
    for token in json_tokenizer.encode(text, add_special_tokens=False).ids:
        refused = not guide.admits(token)
        if refused:
            break
        guide._matcher.consume_token(token)
    assert refused


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"not": {"type": "object"}},
        {"type": "string", "pattern": "(?=a)b"},
        {"$ref": "https://example.org/other"},
    ],
)
def test_what_a_grammar_cannot_say_is_an_error_before_anything_is_computed(json_tokenizer, schema):
    with pytest.raises(ConfigError, match="schema says something"):
        Constraint(schema, json_tokenizer, (END,))


def test_the_digest_is_of_the_schema(json_tokenizer, constraint):
    other = Constraint({"type": "object"}, json_tokenizer, (END,))
    assert other.digest != constraint.digest
    assert (
        Constraint(json.loads(json.dumps(SCHEMA)), json_tokenizer, (END,)).digest
        == constraint.digest
    )


def test_a_value_that_the_tokenizer_cannot_write_to_its_end_is_no_completion():
    letters = [one for one in pre_tokenizers.ByteLevel.alphabet() if one != "}"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = AddedToken("<end>", special=True)
    tokenizer.train_from_iterator(
        ["x"],
        trainers.BpeTrainer(special_tokens=[end], initial_alphabet=letters, show_progress=False),
    )
    schema = {"type": "object", "properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"]}
    closed = schema | {"additionalProperties": False}
    guide = Constraint(closed, tokenizer, (END,)).guide()
    guide.forced()
    guide.take(tokenizer.token_to_id("b"))
    with pytest.raises(ModelError, match="could not be held to the schema"):
        guide.admitted()


def test_a_tokenizer_that_no_grammar_goes_with_is_a_clear_error():
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, "a": 1}, "a"))
    with pytest.raises(ModelError, match="this model's tokenizer"):
        Constraint(SCHEMA, tokenizer, (END,))
