"""`exp augment`, and a training run on variants."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from exp import cli
from exp.config.groups import open_library
from exp.config.overrides import parse
from exp.config.preflight import preflight

SENTENCE = "Necesito comprar 100 unidades de producto A, precio 50 pesos"
ANSWER = '{"producto": "A", "cantidad": 100, "precio_unitario": 50}'


@pytest.fixture
def shown(exp, capsys):
    """Run the command; its lines come back as {what made it: text}."""

    def run(*words, code=0):
        assert exp("augment", *words) == code
        out, err = capsys.readouterr()
        if code:
            return err
        lines = [line.split("  ") for line in out.splitlines() if "  " in line]
        return {line[0]: line[-1].strip() for line in lines}

    return run


def test_each_strategy_is_shown_on_a_text_of_its_own(shown):
    lines = shown(f"text={SENTENCE}", f"output={ANSWER}", "task.language=es", "seed=1")
    assert lines["(the text)"] == SENTENCE
    assert lines["word_order"] == "Precio 50 pesos, necesito comprar 100 unidades de producto A"
    assert lines["accents"] == "(no further variant)"
    for name in ("synonyms", "punctuation", "number_format", "letter_case", "whitespace", "typos"):
        assert lines[name] != SENTENCE
        assert "A" in lines[name]


def test_training_rows_are_shown_with_their_variants(shown, tmp_path):
    rows = [
        {"id": f"n{i}", "input": f"Please send {i} nails", "output": {"n": i}} for i in range(9)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = shown(
        *("task=jsonl", "task.name=nails", f"task.train={file}", "task.language=en", "n=3"),
        *("task.validation_fraction=0", "task.test_fraction=0", "augmentation.factor=3"),
    )
    names = [name for name in lines if name.startswith("n")]
    assert len(names) == 3
    assert all(lines[name] == f"Please send {name[1:]} nails" for name in names)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((f"text={SENTENCE}", "output={n: 1"), "The output is not JSON"),
        (("output={}",), "there is no text"),
        (("augmentation=none",), "Every strategy has weight 0"),
        (("task.language=fr",), "no lexicon for task.language=fr"),
        (("augmentation.factor=5",), "from 1 to 4"),
        (
            ("augmentation.strategies.synonims=1",),
            "the closest is augmentation.strategies.synonyms",
        ),
    ],
)
def test_mistakes_are_named(shown, words, says):
    assert says in shown(*words, code=2)


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
@pytest.mark.thorough
def test_a_text_on_the_command_line_is_taken_as_it_is_typed(text):
    if len(text) > 1 and text[0] == text[-1] == "'":
        return  # quoted by the user already
    override = parse(cli._quoted(f"text={text}", ("text",)))
    value = OmegaConf.create({"text": override.value()}).text
    assert value == (None if text == "null" else text)


@pytest.mark.parametrize(
    "text", ["a,b", "{a: 1}", "it's", "a\\", "a\\'b", "${oc.env:HOME}", "\\${x}", "x\\\\${y}", "$5"]
)
def test_signs_that_mean_something_to_the_parser_mean_nothing_in_a_text(text):
    override = parse(cli._quoted(f"text={text}", ("text",)))
    assert OmegaConf.create({"text": override.value()}).text == text


def test_other_settings_keep_their_grammar():
    assert cli._quoted("lora.r=1,2", ("text",)) == "lora.r=1,2"


def test_variants_without_a_strategy_are_refused_in_training(exp, capsys):
    assert exp("train", "augmentation.factor=2") == 2
    assert "augmentation=standard augmentation.factor=2" in capsys.readouterr().err


def test_a_weight_without_variants_is_warned_about():
    checked = preflight("train", ["augmentation.strategies.typos=1"], open_library())
    assert any("augmentation.factor is 1" in warning for warning in checked.trials[0].warnings)


@pytest.mark.parametrize(("schema", "idle"), [("s.json", False), ("null", True)])
def test_a_lexicon_without_variants_is_of_use_where_a_schema_is(schema, idle):
    words = ["task.train=a.jsonl", f"task.schema={schema}", "augmentation=none"]
    checked = preflight(
        "train", ["task=jsonl", *words, "augmentation.lexicon=mine.toml"], open_library()
    )
    told = [text for text in checked.trials[0].warnings if "augmentation.lexicon" in text]
    assert bool(told) == idle


@pytest.mark.thorough
def test_a_run_trains_on_variants_and_says_what_became_of_them(exp, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [
        {"id": f"n{i}", "input": f"Hi, please send {i + 2} nails. Thanks.", "output": {"n": i + 2}}
        for i in range(6)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = exp(
        *("train", "model=tiny", "hardware=cpu", "hardware.precision=fp32", "task=jsonl"),
        *("hardware.cpu_threads=1", "task.name=nails", f"task.train={file}", "task.language=en"),
        *("task.validation_fraction=0", "task.test_fraction=0", "augmentation=standard"),
        *("training.batch_size=4", "lora.r=2", "training.evaluate_base=false", "name=a"),
        *("generation.max_new_tokens=4", f"output_dir={tmp_path}"),
    )
    assert code == 0
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    derived = {value["name"]: value["value"] for value in record["derived"]}
    assert (derived["examples per epoch"], derived["training steps"]) == (12, 3)
    assert "augmentation, epoch 1: 6 new variants" in (tmp_path / "a" / "run.log").read_text()
