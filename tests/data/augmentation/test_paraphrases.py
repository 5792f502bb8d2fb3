"""Paraphrases of lines on the disk, and texts that are put together from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exp.data.augmentation.paraphrases import (
    add_paraphrases,
    compose,
    lines_of,
    read_paraphrases,
)

TEXTS = st.text(st.characters(codec="utf-8"))
KEPT = st.dictionaries(TEXTS, st.lists(TEXTS))


def test_lines_come_once_and_without_bullets_and_blanks():
    texts = [
        "Hello,\n- 20 nails \r\n  * some pins\n---\n12",
        "Hello,\n\n\u2022 20 nails",
        "-5 \u20ac a day",
    ]
    assert lines_of(texts) == ["Hello,", "20 nails", "some pins", "-5 \u20ac a day"]


def test_a_text_keeps_its_layout_and_every_line_gets_its_own_paraphrases():
    text = "Hello,\n- 20 nails \n\n12\nthanks"
    of_line = {"Hello,": ("Hi,", "Dear all,"), "20 nails": ("nails, 20",), "thanks": ()}
    assert compose(text, of_line) == (
        "Hi,\n- nails, 20 \n\n12\nthanks",
        "Dear all,\n- nails, 20 \n\n12\nthanks",
    )


def test_a_text_without_paraphrased_lines_has_none():
    assert compose("Hello", {}) == ()
    assert compose("Hello", {"Hello": ()}) == ()


def test_what_comes_out_as_the_text_itself_is_no_paraphrase():
    assert compose("a\nb", {"a": ("b", "a"), "b": ("a", "b")}) == ("b\na",)


@given(text=TEXTS)
def test_any_text_is_its_lines_and_what_stands_between_them(text):
    marked = {line: (f"\x00{line}\x01",) for line in lines_of([text])}
    made = compose(text, marked)
    assert len(made) == (1 if marked else 0)
    for paraphrase in made:
        if not {"\x00", "\x01"} & set(text):
            assert paraphrase.replace("\x00", "").replace("\x01", "") == text


@given(
    first=st.dictionaries(TEXTS, st.lists(TEXTS)), second=st.dictionaries(TEXTS, st.lists(TEXTS))
)
@pytest.mark.thorough
def test_what_was_kept_is_read_again(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("kept") / "a.jsonl"
    assert read_paraphrases(path) == {}
    add_paraphrases(path, first)
    add_paraphrases(path, second)
    assert read_paraphrases(path) == {k: tuple(v) for k, v in {**first, **second}.items()}


@pytest.mark.parametrize("kept", range(1, 20))
def test_half_a_line_of_a_killed_writer_costs_that_line_alone(tmp_path, kept):
    path = tmp_path / "a.jsonl"
    add_paraphrases(path, {"one": ["uno"]})
    whole = path.read_bytes()
    add_paraphrases(path, {"two": ["dos", "due"]})
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    add_paraphrases(path, {"three": ["tres"]})
    assert read_paraphrases(path) == {"one": ("uno",), "three": ("tres",)}
