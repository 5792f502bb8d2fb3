import gguf
import pytest

from exp.model.gguf import _parsed_once


def test_readers_and_tables_of_names_are_made_once_within_the_block() -> None:
    arch = gguf.MODEL_ARCH.LLAMA
    reader = gguf.GGUFReader
    with _parsed_once():
        assert gguf.get_tensor_name_map(arch, 2) is gguf.get_tensor_name_map(arch, 2)
        assert gguf.get_tensor_name_map(arch, 3) is not gguf.get_tensor_name_map(arch, 2)
        assert gguf.GGUFReader is not reader


def test_gguf_is_left_as_it_was_whatever_happens() -> None:
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(KeyError), _parsed_once():
        raise KeyError
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
