"""Each row's own schema: its names are words of its input, whatever the notation does with them."""

import json
from dataclasses import replace

import pytest

from exp.config.schema import Notation, OutputFormat
from exp.data.augmentation.number_words import NumberWords
from exp.data.notation import open_writing
from exp.data.render import ChatFormat, Renderer
from exp.generation.constraint import Constraint, GroundedConstraint
from exp.generation.engine import Engine
from exp.generation.grounding.choices import ChoiceRules
from exp.generation.grounding.learning import learn_grounding
from exp.generation.grounding.numbers import NumberRules
from exp.generation.grounding.rules import GroundingRules
from exp.generation.grounding.schema import MOST_WORDS, GroundedSchema
from exp.records import Example

SCHEMA = {
    "type": "object",
    "properties": {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1, "maxItems": 2}
    },
    "required": ["lines"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "kind": {"enum": ["big", "small"]},
                "count": {"type": "integer", "exclusiveMinimum": 0},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
NAME, COUNT = ("lines", "[]", "name"), ("lines", "[]", "count")
KIND = ("lines", "[]", "kind")
END = 0


def names():
    return [f"{a}{b}{c}" for a in ("ba", "co", "di") for b in ("lo", "mu", "ne", "pi") for c in
            ("ra", "so", "ta", "vu", "ze")]  # fmt: skip


@pytest.fixture(scope="module")
def grounding() -> GroundingRules:
    rows = [
        Example(name, f"please send {i} {name}s today", {"lines": [{"name": name, "count": i}]})
        for i, name in enumerate(names())
    ]
    found = learn_grounding(rows, NumberWords())
    assert list(found.strings) == [NAME]
    assert list(found.numbers) == [COUNT]
    return replace(found, choices={KIND: ChoiceRules({"big": ("large",), "small": ("little",)})})


def grounded(grounding, notation, schema=SCHEMA):
    return GroundedSchema(
        schema, grounding, lambda s: open_writing(notation, OutputFormat.json, s).grammar
    )


def constraint(grounding, notation, tokenizer, read_input):
    grammar = open_writing(notation, OutputFormat.json, SCHEMA).grammar
    schema = grounded(grounding, notation)
    return GroundedConstraint(grammar, schema, read_input, tokenizer, (END,))


def admitted(guide, tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return guide._matcher.try_consume_tokens(ids) == len(ids)


def assert_admits(made, notation, tokenizer, more, wanted):
    """A line without `more` may be written, and one with it only where that is wanted."""
    writing = open_writing(notation, OutputFormat.json, SCHEMA)
    line = {"name": "tolave"}
    assert admitted(made.guide([1]), tokenizer, writing.write({"lines": [line]}))
    written = writing.write({"lines": [{**line, **more}]})
    assert admitted(made.guide([1]), tokenizer, written) == wanted


@pytest.mark.parametrize("notation", list(Notation))
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("tolave", True), ("tolaves", False), ("balora", False), ("today", False), ("send", False)],
)
def test_a_row_may_write_words_of_its_input_and_no_others(
    grounding, json_tokenizer, notation, name, wanted
):
    made = constraint(grounding, notation, json_tokenizer, lambda _: "please send tolaves today")
    written = open_writing(notation, OutputFormat.json, SCHEMA).write({"lines": [{"name": name}]})
    assert admitted(made.guide([1]), json_tokenizer, written) == wanted


@pytest.mark.parametrize("notation", list(Notation))
@pytest.mark.parametrize(
    ("text", "count", "wanted"),
    [
        ("please send 12 tolaves, room 340", 12, True),
        ("please send 12 tolaves, room 340", 340, True),
        ("please send 12 tolaves, room 340", 1, False),
        ("please send 12 tolaves, room 340", 3, False),
        ("please send 1.5 tolaves", 1.5, False),  # the schema asks for a whole number
        ("please send 0 tolaves", 0, False),  # and for a positive one
        ("please send tolaves", 12, False),
    ],
)
def test_a_row_may_write_numbers_that_its_input_states(
    grounding, json_tokenizer, notation, text, count, wanted
):
    made = constraint(grounding, notation, json_tokenizer, lambda _: text)
    assert_admits(made, notation, json_tokenizer, {"count": count}, wanted)


@pytest.mark.parametrize("notation", list(Notation))
@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("send large tolaves", "big", True),
        ("send large tolaves", "small", False),
        ("send large and little tolaves", "small", True),
        ("send tolaves", "big", False),
        ("send big tolaves", "big", True),
    ],
)
def test_a_row_may_write_choices_that_its_input_speaks_of(
    grounding, json_tokenizer, notation, text, kind, wanted
):
    made = constraint(grounding, notation, json_tokenizer, lambda _: text)
    assert_admits(made, notation, json_tokenizer, {"kind": kind}, wanted)


@pytest.mark.parametrize("notation", list(Notation))
@pytest.mark.parametrize(
    ("more", "text", "wanted"),
    [
        ({"count": 12}, "send tolaves", True),
        ({"count": 12}, "send 12 tolaves", True),
        ({"count": 12}, "5 tolaves", False),
        ({"kind": "big"}, "send tolaves", True),
        ({"kind": "big"}, "large tolaves", True),
        ({"kind": "big"}, "little tolaves", False),
    ],
)
def test_what_must_be_there_is_free_where_the_input_has_none(
    grounding, json_tokenizer, notation, more, text, wanted
):
    line = {**SCHEMA["$defs"]["line"], "required": ["name", *more]}
    schema = {**SCHEMA, "$defs": {"line": line}}
    writing = open_writing(notation, OutputFormat.json, schema)
    written = writing.write({"lines": [{"name": "tolave", **more}]})
    made = Constraint(grounded(grounding, notation, schema).of(text), json_tokenizer, (END,))
    assert admitted(made.guide([1]), json_tokenizer, written) == wanted


@pytest.mark.parametrize("notation", list(Notation))
@pytest.mark.parametrize(
    ("text", "left_out", "kind", "wanted"),
    [
        ("big tolaves", True, None, False),
        ("big tolaves", False, "big", True),
        ("big tolaves", False, "small", False),
        ("big and little tolaves", False, "small", True),
        ("formerly big tolaves", True, None, True),
        ("large tolaves", True, None, True),
        ("large tolaves", False, "big", True),
        ("tolaves", True, None, True),
        ("tolaves", False, "big", False),
    ],
)
def test_a_choice_that_the_input_calls_for_cannot_be_left_out(
    grounding, json_tokenizer, notation, text, left_out, kind, wanted
):
    schema = {
        **SCHEMA,
        "properties": {**SCHEMA["properties"], "kind": {"enum": ["big", "small"]}},
    }
    choices = ChoiceRules({"big": ("large",), "small": ("little",)}, against=("formerly",))
    made = grounded(replace(grounding, choices={("kind",): choices}), notation, schema)
    answer = {"lines": [{"name": "tolave"}], **({} if left_out else {"kind": kind})}
    written = open_writing(notation, OutputFormat.json, schema).write(answer)
    guide = Constraint(made.of(text), json_tokenizer, (END,)).guide([1])
    whole = admitted(guide, json_tokenizer, written) and (guide.complete or guide.admits(END))
    assert whole == wanted


@pytest.mark.parametrize("notation", list(Notation))
def test_numbers_that_are_another_fields_are_written_only_where_there_must_be_one(
    grounding, json_tokenizer, notation
):
    barring = NumberRules(decimals=3, barring=frozenset({"room #"}))
    told = replace(grounding, numbers={COUNT: barring})
    text = "send 12 tolaves, room 340"
    for count, wanted in ((12, True), (340, False)):
        made = constraint(told, notation, json_tokenizer, lambda _: text)
        assert_admits(made, notation, json_tokenizer, {"count": count}, wanted)
    line = {**SCHEMA["$defs"]["line"], "required": ["name", "count"]}
    schema = {**SCHEMA, "$defs": {"line": line}}
    writing = open_writing(notation, OutputFormat.json, schema)
    made = grounded(told, notation, schema)
    for text, count in (("tolaves, room 340", 340), ("tolaves", 12)):
        guide = Constraint(made.of(text), json_tokenizer, (END,)).guide([1])
        written = writing.write({"lines": [{"name": "tolave", "count": count}]})
        assert admitted(guide, json_tokenizer, written)


@pytest.mark.parametrize(
    "kind", [{"type": "string"}, {"enum": ["big", 1]}, {"enum": ["big"], "pattern": "b"}, {}]
)
def test_a_field_of_few_values_without_a_plain_list_is_free(grounding, json_tokenizer, kind):
    line = SCHEMA["$defs"]["line"]
    schema = {
        **SCHEMA,
        "$defs": {"line": {**line, "properties": {**line["properties"], "kind": kind}}},
    }
    made = grounded(grounding, Notation.json, schema)
    assert not made.unreached
    assert made.of("send tolaves")["$defs"]["line"]["properties"]["kind"] == kind


@pytest.mark.parametrize("notation", list(Notation))
def test_a_definition_that_other_fields_share_is_theirs_as_before(
    grounding, json_tokenizer, notation
):
    """`note` and `name` say the same, and only one of them is grounded."""
    word = {"type": "string", "minLength": 1}
    line = SCHEMA["$defs"]["line"]
    shared = {**line["properties"], "name": {"$ref": "#/$defs/word"}}
    schema = {
        **SCHEMA,
        "$defs": {
            "line": {**line, "properties": {**shared, "note": {"$ref": "#/$defs/word"}}},
            "word": word,
        },
    }
    writing = open_writing(notation, OutputFormat.json, schema)
    made = grounded(grounding, notation, schema)
    assert not made.unreached
    guide = Constraint(made.of("send 2 tolaves"), json_tokenizer, (END,)).guide
    for name, note, wanted in (("tolave", "tolave", True), ("tolave", "soon", True),
                               ("soon", "soon", False)):  # fmt: skip
        written = writing.write({"lines": [{"name": name, "note": note}]})
        assert admitted(guide([1]), json_tokenizer, written) == wanted


@pytest.mark.parametrize("notation", list(Notation))
def test_lengths_that_the_schema_asks_of_a_name_hold(grounding, json_tokenizer, notation):
    line = SCHEMA["$defs"]["line"]
    short = {"type": "string", "minLength": 3, "maxLength": 6}
    schema = {
        **SCHEMA,
        "$defs": {"line": {**line, "properties": {**line["properties"], "name": short}}},
    }
    writing = open_writing(notation, OutputFormat.json, schema)
    made = grounded(grounding, notation, schema)
    guide = Constraint(made.of("send tolaves and tamarinas, ra"), json_tokenizer, (END,)).guide
    for name, wanted in (("tolave", True), ("tamarina", False), ("ra", False)):
        written = writing.write({"lines": [{"name": name}]})
        assert admitted(guide([1]), json_tokenizer, written) == wanted


@pytest.mark.parametrize(
    "more", [{"pattern": "^[a-z]+$"}, {"format": "date"}, {"$ref": "#/$defs/line", "maxLength": 3}]
)
def test_a_name_of_which_the_schema_says_more_is_named_and_left_free(grounding, more):
    line = SCHEMA["$defs"]["line"]
    name = more if "$ref" in more else {"type": "string", **more}
    schema = {
        **SCHEMA,
        "$defs": {"line": {**line, "properties": {**line["properties"], "name": name}}},
    }
    assert grounded(grounding, Notation.json, schema).unreached == [NAME]


@pytest.mark.parametrize("notation", list(Notation))
def test_the_schema_itself_is_left_as_it_was(grounding, notation):
    before = json.dumps(SCHEMA)
    schema = grounded(grounding, notation)
    assert json.dumps(SCHEMA) == before
    first, second = schema.of("send tolaves"), schema.of("send pirules")
    assert first != second
    assert "tolave" in json.dumps(first)
    assert "tolave" not in json.dumps(second)
    assert "\\ue000" not in json.dumps(first)


def test_a_field_that_the_schema_says_in_two_ways_is_named_and_left_free(grounding):
    line = SCHEMA["$defs"]["line"]
    open_name = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    schema = {
        **SCHEMA,
        "$defs": {"line": {**line, "properties": {**line["properties"], "name": open_name}}},
    }
    made = grounded(grounding, Notation.json, schema)
    assert made.unreached == [NAME]
    assert made.of("send 3 tolaves")["$defs"]["line"]["properties"]["name"] == open_name


def test_references_that_lead_in_a_circle_end(grounding):
    circle = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
    made = grounded(grounding, Notation.json, {"$ref": "#/$defs/a", "$defs": circle})
    assert made.unreached == [NAME, COUNT]


def test_an_input_without_words_leaves_the_field_to_the_schema(grounding, json_tokenizer):
    made = constraint(grounding, Notation.json, json_tokenizer, lambda _: "?!")
    assert admitted(made.guide([1]), json_tokenizer, '{"lines":[{"name":"abc"}]}')


def test_an_input_of_too_many_words_is_held_to_the_schema_alone_and_told(
    grounding, json_tokenizer, caplog
):
    text = " ".join(f"{name}s" for name in names() * 12)
    assert len(text.split()) > MOST_WORDS
    made = constraint(grounding, Notation.json, json_tokenizer, lambda _: text)
    assert admitted(made.guide([1]), json_tokenizer, '{"lines":[{"name":"anything"}]}')
    assert f"more than {MOST_WORDS} words" in caplog.text
    at_most = " ".join(text.split()[:MOST_WORDS])
    fitting = constraint(grounding, Notation.json, json_tokenizer, lambda _: at_most)
    assert admitted(fitting.guide([1]), json_tokenizer, '{"lines":[{"name":"balora"}]}')
    assert not admitted(fitting.guide([1]), json_tokenizer, '{"lines":[{"name":"anything"}]}')


def test_rows_side_by_side_have_each_their_own(grounding, build_model, json_tokenizer):
    """Through the engine, with random weights: whatever is whole is a word of its own input."""
    words = ("tolaves", "pirules", "zenitas", "mubaros", "rilocas")
    texts = [f"{'please ' * (1 + i % 3)}send {i} {word} today" for i, word in enumerate(words * 3)]
    chat = ChatFormat(json_tokenizer, None, None, "<end>")
    renderer = Renderer(chat, "Read the order.", OutputFormat.json, SCHEMA, Notation.positional)
    made = constraint(grounding, Notation.positional, json_tokenizer, renderer.read_input)
    model = build_model("llama", vocab_size=json_tokenizer.get_vocab_size() + 5)
    found = {}
    engine = Engine(model, max_new_tokens=80, stop_ids=(END,), num_slots=4, constraint=made)
    engine.generate(renderer.render_prompts(texts), found.__setitem__)
    whole = 0
    for number, text in enumerate(texts):
        if found[number].finish_reason != "stop":
            continue
        whole += 1
        for line in json.loads(renderer.decode(found[number].token_ids))["lines"]:
            word = line["name"].split()[0]
            assert word in text
            assert word not in ("today", "pleases")
            assert line.get("count", number) == number
    assert whole > 5


def test_the_digest_is_of_what_was_learned_too(grounding, json_tokenizer):
    made = constraint(grounding, Notation.json, json_tokenizer, str)
    assert made.digest != Constraint(SCHEMA, json_tokenizer, (END,)).digest
    nothing = GroundingRules({}, {}, {}, NumberWords(), {})
    other = GroundedSchema(SCHEMA, nothing, lambda schema: schema)
    assert GroundedConstraint(SCHEMA, other, str, json_tokenizer, (END,)).digest != made.digest
