import pytest

from exp.errors import CheckpointError
from exp.generation.grounding.learning import learn_grounding
from exp.generation.grounding.storage import read_grounding, write_grounding
from exp.records import Example


def test_what_was_learned_is_the_same_after_a_file(tmp_path):
    names = [f"{a}{b}{c}ón" for a in "bcdf" for b in ("alm", "er", "ib", "od") for c in "lmnp"]
    rows = [
        Example(name, f"dos cajas de {name.replace('ó', 'o')}es para hoy", {"name": name})
        for name in names
    ]
    grounding = learn_grounding(rows)
    rules = grounding.fields[("name",)]
    path = tmp_path / "grounding.json"
    write_grounding(path, grounding)
    again = read_grounding(path)
    assert again.digest == grounding.digest
    for text in ("dos cajas de zorzalones", "UN PALMERON, hoy", "3 bananones de X-31"):
        assert again.fields[("name",)].pattern(text) == rules.pattern(text)
    assert "zorzalón" in rules.pattern("dos cajas de zorzalones")


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"fields": [[["a"], {}]]}'])
def test_a_missing_or_damaged_file_is_told_in_three_lines(tmp_path, content):
    path = tmp_path / "grounding.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_grounding(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "generation.constrain=schema" in lines[2]
