import json

import pytest

from exp.errors import ModelError
from exp.model.source import ModelFiles
from exp.model.tokenizer import BYTE_TEMPLATE, byte_chat_format, load_chat_format


@pytest.fixture
def folder(tmp_path):
    """A model folder with a byte-level tokenizer and the settings given to it."""

    def write(settings=None, template=None):
        byte_chat_format().tokenizer.save(str(tmp_path / "tokenizer.json"))
        if settings is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        if template is not None:
            (tmp_path / "chat_template.jinja").write_text(template)
        return ModelFiles(tmp_path, "folder")

    return write


def test_every_text_survives_the_byte_tokenizer():
    tokenizer = byte_chat_format().tokenizer
    for text in ("", " a\n", "ñandú 日本 \U0001f600", "\x00\x85"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_byte_tokenizer_has_one_token_per_byte_and_few_control_tokens():
    tokenizer = byte_chat_format().tokenizer
    assert len(tokenizer.encode("ñ").ids) == 2
    assert tokenizer.get_vocab_size() == 262


def test_a_model_without_files_gets_the_byte_tokenizer():
    chat = load_chat_format(ModelFiles(None, "random weights"))
    assert chat.template == BYTE_TEMPLATE
    assert (chat.bos_token, chat.eos_token) == ("<|bos|>", "<|eos|>")


@pytest.mark.parametrize("eos", ["<|eos|>", {"content": "<|eos|>", "lstrip": False}])
def test_special_tokens_are_read_in_both_forms(folder, eos):
    chat = load_chat_format(folder({"eos_token": eos, "bos_token": None}))
    assert (chat.eos_token, chat.bos_token, chat.template) == ("<|eos|>", None, None)


@pytest.mark.parametrize(
    ("in_settings", "file", "expected"),
    [
        (None, None, None),
        ("A", None, "A"),
        ("A", "B", "B"),
        ([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "A"}], None, "A"),
        ([{"name": "tool_use", "template": "T"}], None, None),
    ],
)
def test_the_template_is_the_file_before_the_setting(folder, in_settings, file, expected):
    settings = {"eos_token": "<|eos|>", "chat_template": in_settings}
    assert load_chat_format(folder(settings, file)).template == expected


def test_stored_truncation_and_padding_are_switched_off(folder, tmp_path):
    files = folder({"eos_token": "<|eos|>"})
    tokenizer = byte_chat_format().tokenizer
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load_chat_format(files).tokenizer.encode("a" * 30).ids) == 30
    assert len(load_chat_format(files).tokenizer.encode("a").ids) == 1


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_chat_format(ModelFiles(tmp_path, "folder"))


@pytest.mark.parametrize("settings", [None, {"eos_token": None}])
def test_a_tokenizer_without_an_end_of_text_token_is_refused(folder, settings):
    with pytest.raises(ModelError, match="names no end-of-text token"):
        load_chat_format(folder(settings))
