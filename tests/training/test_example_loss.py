import numpy as np
import pytest
import torch
from torch.nn import functional

from exp.config.schema import Layout, ModelConfig, Precision
from exp.data.tokens import TokenStore
from exp.model.base import load_base
from exp.model.source import ModelFiles
from exp.training.example_loss import example_losses

ARCHITECTURE = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(name="tiny", architecture=ARCHITECTURE)
    return load_base(config, ModelFiles(None, "random weights"), Precision.fp32, seed=0)


@pytest.fixture(scope="module")
def store():
    random = np.random.default_rng(0)
    own, completions = random.integers(1, 9, (2, 23))
    starts = np.concatenate([[0], np.cumsum(own + completions)])
    return TokenStore(
        head_ids=tuple(random.integers(0, 64, 18).tolist()),
        ids=random.integers(0, 64, starts[-1]).astype(np.int32),
        prompt_starts=starts,
        completion_starts=starts[:-1] + own,
        example_ids=[f"row-{i}" for i in range(23)],
    )


def reference(model, rendered):
    ids = torch.tensor([[*rendered.prompt_ids, *rendered.completion_ids]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    start = len(rendered.prompt_ids) - 1
    return functional.cross_entropy(logits[start:], ids[0, start + 1 :]).item()


@pytest.mark.parametrize("layout", Layout)
def test_each_example_gets_the_mean_loss_of_its_own_completion(model, store, layout):
    rows, done = np.arange(1, 23, 2), []
    losses = example_losses(model, store, rows, layout, 200, done.append)
    expected = [reference(model, store[int(row)]) for row in rows]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert sum(done) == len(rows)


def test_mode_and_attention_of_the_model_are_put_back(model, store):
    model.train()
    before = model.config._attn_implementation
    example_losses(model, store, np.arange(3), Layout.packed, 200, lambda count: None)
    assert (model.training, model.config._attn_implementation) == (True, before)
    model.eval()
