from decimal import Decimal

import pytest

from exp.data.augmentation.lexicon import load_lexicon, load_number_words, shipped_languages
from exp.data.augmentation.number_words import NumberWords
from exp.data.augmentation.words import split_words
from exp.errors import ConfigError, DataError

LANGUAGES = shipped_languages()


def folded(phrase):
    return [word.folded for word in split_words(phrase)]


def test_spanish_and_english_are_shipped():
    assert LANGUAGES == ["en", "es"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_synonym_has_a_word_on_which_an_answer_may_turn(language):
    lexicon = load_lexicon(language, None)
    decisive = lexicon.keep | lexicon.numbers.all
    guilty = [p for group in lexicon.synonyms for p in group if decisive & set(folded(p))]
    assert guilty == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_synonyms_of_a_group_differ(language):
    for group in load_lexicon(language, None).synonyms:
        assert len({tuple(folded(phrase)) for phrase in group}) == len(group)


def test_a_lexicon_of_your_own_adds_to_the_shipped_one(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text(
        'kept_accents = "ñü"\nkeep = ["Cóndor"]\nsynonyms = [["remitir", "despachar"]]\n'
        "[collectives]\ngruesa = 144\n"
    )
    shipped, merged = load_lexicon("es", None), load_lexicon("es", str(own))
    assert merged.keep == shipped.keep | {"condor"}
    assert merged.synonyms == (*shipped.synonyms, ("remitir", "despachar"))
    assert merged.numbers.collectives == {**shipped.numbers.collectives, "gruesa": Decimal(144)}
    assert merged.kept_accents == "ñü"
    assert merged.digest != shipped.digest


def test_a_lexicon_of_your_own_brings_another_language(tmp_path):
    own = tmp_path / "fr.toml"
    own.write_text('synonyms = [["bonjour", "salut"]]\n')
    assert load_lexicon("fr", str(own)).language == "fr"


def test_number_words_of_a_language_without_a_lexicon_are_none(tmp_path):
    assert load_number_words("es", None) == load_lexicon("es", None).numbers
    assert load_number_words("fr", None) == load_number_words(None, None) == NumberWords()
    own = tmp_path / "fr.toml"
    own.write_text("[small]\ndeux = 2\n")
    assert load_number_words("fr", str(own)).small == {"deux": 2}


@pytest.mark.parametrize("language", ["fr", None])
def test_a_language_without_a_lexicon_is_refused_with_a_fix(language):
    with pytest.raises(ConfigError) as caught:
        load_lexicon(language, None)
    assert "en, es" in caught.value.what
    assert "augmentation.lexicon=" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("synonyms = 3", "under synonyms"),
        ('synonyms = [["one"]]', "under synonyms"),
        ('synonyms = [["a", ""]]', "under synonyms"),
        ('synonims = [["a", "b"]]', "unknown key synonims"),
        ('[small]\ntwo = "2"', "under small"),
        ("[small]\ntwo = true", "under small"),
        ("keep = [1]", "under keep"),
        ("groups = 1", "under groups"),
        ('notations = [["."]]', "under notations"),
        ('notations = [[".", "\'"]]', "under notations"),
        ('notations = [[".", "."]]', "under notations"),
        ("synonyms = [", "not TOML"),
    ],
)
def test_a_file_that_is_no_lexicon_is_refused(tmp_path, content, says):
    own = tmp_path / "mine.toml"
    own.write_text(content)
    with pytest.raises(DataError, match="lexicon") as caught:
        load_lexicon("es", str(own))
    assert says in caught.value.what
    assert str(own) in caught.value.where


def test_a_lexicon_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        load_lexicon("es", str(tmp_path / "none.toml"))


def test_a_byte_order_mark_changes_nothing_in_a_lexicon(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_bytes(b'\xef\xbb\xbfkeep = ["pallet"]')
    assert "pallet" in load_lexicon("en", str(own)).keep
