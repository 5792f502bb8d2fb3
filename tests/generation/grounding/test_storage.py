import json
from dataclasses import replace

import pytest

from exp.data.augmentation.lexicon import load_number_words
from exp.errors import CheckpointError
from exp.generation.grounding.choices import ChoiceRules
from exp.generation.grounding.learning import learn_grounding
from exp.generation.grounding.numbers import NumberRules
from exp.generation.grounding.storage import read_grounding, write_grounding
from exp.records import Example


def test_what_was_learned_is_the_same_after_a_file(tmp_path):
    names = [f"{a}{b}{c}ón" for a in "bcdf" for b in ("alm", "er", "ib", "od") for c in "lmnp"]
    rows = [
        Example(
            name,
            f"{i} {'cajas' if i % 2 else 'sacos'} de {name.replace('ó', 'o')}es para hoy",
            {"name": name, "count": i, "unit": "caja" if i % 2 else "saco"},
        )
        for i, name in enumerate(names)
    ]
    grounding = learn_grounding(rows, load_number_words("es", None))
    rules = grounding.strings[("name",)]
    path = tmp_path / "grounding.json"
    write_grounding(path, grounding)
    again = read_grounding(path)
    assert again.digest == grounding.digest
    for text in ("dos cajas de zorzalones", "UN PALMERON, hoy", "3 bananones de X-31"):
        assert again.strings[("name",)].pattern(text) == rules.pattern(text)
    assert again.numbers == grounding.numbers
    assert again.choices == grounding.choices
    assert again.choices[("unit",)].signs["saco"] == ("sacos",)
    assert again.number_words == grounding.number_words
    assert "zorzalón" in rules.pattern("dos cajas de zorzalones")


def test_files_of_before_there_were_choices_needs_and_surroundings_are_read(tmp_path, orders):
    learned = learn_grounding(orders("train")[:100], load_number_words("es", None))
    currency = {("moneda",): ChoiceRules({"pesos": ("$",)}, against=("gratis",))}
    price = {("lineas", "[]", "precio_unitario"): NumberRules(2, (), frozenset({"# kilos"}))}
    grounding = replace(learned, choices=currency, numbers=price)
    plain = grounding.to_plain()
    path = tmp_path / "grounding.json"
    path.write_text(json.dumps(plain))
    assert read_grounding(path).digest == grounding.digest
    assert plain["choices"][0][1].pop("against") == ["gratis"]
    assert plain["numbers"][0][1].pop("barring") == ["# kilos"]
    path.write_text(json.dumps(plain))
    older = read_grounding(path)
    assert older.choices[("moneda",)] == ChoiceRules({"pesos": ("$",)}, None)
    assert list(older.numbers.values()) == [NumberRules(2)]
    assert plain.pop("choices")
    path.write_text(json.dumps(plain))
    assert read_grounding(path).digest == replace(older, choices={}).digest


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"strings": [[["a"], {}]]}'])
def test_a_missing_or_damaged_file_is_told_in_three_lines(tmp_path, content):
    path = tmp_path / "grounding.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_grounding(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "generation.constrain=schema" in lines[2]
