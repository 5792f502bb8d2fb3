import pytest

from exp.metrics.text_match import normalise_text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dos  Mil\n", "dos mil"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "CAFÉ"),
        ("\uff15\uff10", "50"),
    ],
)
def test_case_width_and_white_space_do_not_count(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other)


@pytest.mark.parametrize(("one", "other"), [("café", "cafe"), ("a.", "a"), ("ab", "a b")])
def test_accents_punctuation_and_words_count(one: str, other: str) -> None:
    assert normalise_text(one) != normalise_text(other)
