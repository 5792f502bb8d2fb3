import json

import pytest

from exp.config.schema import ModelConfig
from exp.model.context_length import context_length
from exp.model.source import ModelFiles


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}, "max_position_embeddings": 64}, 512),
        ({"text_config": {}, "max_position_embeddings": 64}, 64),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_the_length_is_found_by_whatever_name_it_has(settings, length, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert context_length(ModelConfig(name="m"), ModelFiles(tmp_path, "folder")) == length
    random = ModelConfig(name="m", architecture=settings)
    assert context_length(random, ModelFiles(None, "random weights")) == length
