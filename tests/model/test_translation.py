"""Translation there and back by random MarianMT models, saved, loaded and decoded for real."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from exp.errors import ModelError
from exp.model.source import ModelFiles
from exp.model.translation import load_translator, paraphrase

LINES = [
    "please send nails",
    "now",
    "we need some of the good pins today thanks",
    "kindly send 20 of the screws now",
    "thanks",
    "we need the good nails and more words that nobody knows please " * 2,
]


def open_translator(folder, prefix=""):
    return load_translator(ModelFiles(folder, f"folder {folder}"), "forward", prefix, "cpu")


@pytest.fixture
def forward(translation_model):
    return open_translator(translation_model(0))


@pytest.fixture
def backward(translation_model):
    return open_translator(translation_model(1))


@pytest.fixture
def copied(translation_model, tmp_path):
    """A copy of a model's folder, to spoil."""
    return shutil.copytree(translation_model(0), tmp_path / "copy")


def test_a_translation_is_the_best_of_a_plain_beam_search(forward):
    batch = forward.tokenizer(["please send nails"], return_tensors="pt")
    sequences = forward.model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        num_beams=4,
        num_return_sequences=3,
        max_new_tokens=32,
        suppress_tokens=[0],
        forced_eos_token_id=None,
    )
    plain = forward.tokenizer.batch_decode(sequences, skip_special_tokens=True)
    said = [text for text in plain if text]
    assert forward.translate(["please send nails"], 3, 1) == [said]
    assert len(set(said)) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("lines", [LINES, LINES[::-1]])
@pytest.mark.thorough
def test_a_translation_depends_neither_on_its_batch_nor_on_the_order(forward, lines, batch_size):
    expected = [forward.translate([line], 4, 1)[0] for line in lines]
    assert len(set(map(tuple, expected))) >= 5
    assert forward.translate(lines, 4, batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("lines", [LINES, LINES[::-1]])
@pytest.mark.thorough
def test_a_paraphrase_depends_neither_on_its_batch_nor_on_the_order(
    forward, backward, lines, batch_size
):
    expected = [paraphrase([line], forward, backward, 4, 1)[0] for line in lines]
    assert len(set(expected)) >= 3
    assert paraphrase(lines, forward, backward, 4, batch_size) == expected


def test_paraphrases_are_distinct_and_never_the_line_itself(forward, backward):
    for line, made in zip(LINES, paraphrase(LINES, forward, backward, 4, 8), strict=True):
        assert len(made) == len(set(made)) <= 4
        assert all(made)
        assert line not in made


def test_random_numbers_are_neither_used_nor_taken(forward, backward):
    before = torch.get_rng_state()
    first = paraphrase(LINES, forward, backward, 3, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert paraphrase(LINES, forward, backward, 3, 4) == first


def test_a_line_that_is_too_long_for_the_model_is_not_translated(forward):
    fits = " ".join(["nails"] * (forward.max_tokens - 1))
    assert forward.max_tokens == 48
    fitting, long = forward.translate([fits, f"{fits} nails"], 2, 2)
    assert fitting
    assert long == []


def test_a_translation_that_comes_to_no_end_does_not_count(copied):
    weights = load_file(copied / "model.safetensors")
    weights["final_logits_bias"][0, 1] = -100.0
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert open_translator(copied).translate(LINES[:2], 3, 2) == [[], []]


def test_a_prefix_stands_before_every_line(translation_model):
    plain, prefixed = (open_translator(translation_model(0), p) for p in ("", "please send "))
    assert prefixed.translate(["nails"], 3, 1) == plain.translate(["please send nails"], 3, 1)


@pytest.mark.parametrize("fault", ["no_weight", "other_kind", "no_pad", "languages", "damaged"])
def test_what_is_no_translation_model_is_refused_in_three_lines(copied, fault, monkeypatch):
    says = {
        "no_weight": "it lacks model.encoder.layers.0.fc1.weight",
        "other_kind": "Unrecognized configuration class",
        "no_pad": "it does not say which tokens pad and end a text",
        "languages": "it is for many languages, and needs language codes",
        "damaged": "cannot be used",
    }
    if fault == "no_weight":
        weights = load_file(copied / "model.safetensors")
        del weights["model.encoder.layers.0.fc1.weight"]
        save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    elif fault == "other_kind":
        (copied / "config.json").write_text(json.dumps({"model_type": "llama"}))
    elif fault == "no_pad":
        settings = json.loads((copied / "generation_config.json").read_text())
        del settings["eos_token_id"]
        (copied / "generation_config.json").write_text(json.dumps(settings))
    elif fault == "languages":
        import transformers

        monkeypatch.setattr(
            transformers.PreTrainedTokenizerFast, "src_lang", "en_XX", raising=False
        )
    else:
        (copied / "model.safetensors").write_bytes(b"12345678 no safetensors")
    with pytest.raises(ModelError) as caught:
        open_translator(copied)
    lines = str(caught.value).splitlines()
    assert says[fault] in lines[0]
    assert len(lines) == 3
