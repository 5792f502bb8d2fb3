"""Back-translation from the command line to the variants: made once, kept, gone on with."""

import json
import logging
import os
from dataclasses import replace

import pytest

from exp.cachedir import cache_dir
from exp.commands import paraphrasing
from exp.commands.paraphrasing import open_paraphrases
from exp.config.schema import AugmentationConfig, BackTranslationConfig, StrategiesConfig
from exp.data.augmentation.paraphrases import lines_of
from exp.model import translation

TEXTS = [
    "please send nails\nthanks",
    "now",
    "we need some of the good pins today thanks",
    "- kindly send 20 of the screws now\n- thanks",
    "we need the good nails",
]
MODELS = "augmentation.back_translation"


@pytest.fixture
def config(translation_model):
    models = BackTranslationConfig(
        forward=str(translation_model(0)), backward=str(translation_model(1)), batch_size=1
    )
    return AugmentationConfig(
        factor=2, strategies=StrategiesConfig(back_translation=1.0), back_translation=models
    )


@pytest.fixture
def translated(monkeypatch):
    """The lines that models were asked for, in portions."""
    asked = []
    paraphrase = translation.paraphrase

    def count(lines, *rest):
        asked.append(list(lines))
        return paraphrase(lines, *rest)

    monkeypatch.setattr(translation, "paraphrase", count)
    return asked


def test_the_second_time_nothing_is_computed_and_no_model_is_loaded(
    config, translated, monkeypatch
):
    first = open_paraphrases(TEXTS, config, "cpu")
    assert set(first) == set(TEXTS)
    assert sum(map(len, first.values())) > 4
    lines = [line for portion in translated for line in portion]
    assert sorted(lines) == sorted({*lines})
    translated.clear()
    monkeypatch.setattr(translation, "load_translator", None)
    assert open_paraphrases(TEXTS, config, "cpu") == first
    assert open_paraphrases(TEXTS[::-1][:3], config, "cpu").items() <= first.items()
    assert translated == []


@pytest.mark.thorough
def test_only_lines_that_nobody_had_yet_are_translated(config, translated):
    open_paraphrases(TEXTS[:2], config, "cpu")
    translated.clear()
    open_paraphrases(TEXTS, config, "cpu")
    assert sorted(line for portion in translated for line in portion) == [
        "kindly send 20 of the screws now",
        "we need some of the good pins today thanks",
        "we need the good nails",
    ]


@pytest.mark.thorough
def test_old_lines_are_kept_where_new_ones_come_to_them(config, translated, monkeypatch):
    first = open_paraphrases(TEXTS[:3], config, "cpu")
    (path,) = cache_dir("paraphrases").glob("*.jsonl")
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    read = paraphrasing.read_paraphrases

    def read_without_access_time(path):
        before = path.stat()
        kept = read(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return kept

    monkeypatch.setattr(paraphrasing, "read_paraphrases", read_without_access_time)
    translated.clear()
    assert first.items() <= open_paraphrases(TEXTS, config, "cpu").items()
    asked = {line for portion in translated for line in portion}
    assert asked == {*lines_of(TEXTS)} - {*lines_of(TEXTS[:3])}


@pytest.mark.thorough
def test_a_killed_preparation_goes_on_where_it_stopped(config, monkeypatch):
    whole = open_paraphrases(TEXTS, config, "cpu")
    (path,) = cache_dir("paraphrases").glob("*.jsonl")
    path.unlink()
    monkeypatch.setattr(paraphrasing, "BATCHES_KEPT", 1)
    paraphrase = translation.paraphrase
    asked = []

    def killed(lines, *rest):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.extend(lines)
        return paraphrase(lines, *rest)

    monkeypatch.setattr(translation, "paraphrase", killed)
    with pytest.raises(KeyboardInterrupt):
        open_paraphrases(TEXTS, config, "cpu")
    content = path.read_bytes()
    path.write_bytes(content[:-5])  # and the last line was half written
    done, asked[:] = asked[:2], []

    def counted(lines, *rest):
        asked.extend(lines)
        return paraphrase(lines, *rest)

    monkeypatch.setattr(translation, "paraphrase", counted)
    assert open_paraphrases(TEXTS, config, "cpu") == whole
    assert len(asked) == 4
    assert not {*asked} & {*done}


@pytest.mark.parametrize("order", [TEXTS, TEXTS[::-1]])
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.thorough
def test_paraphrases_depend_neither_on_the_order_nor_on_the_batch_size(config, order, batch_size):
    expected = {text: open_paraphrases([text], config, "cpu")[text] for text in TEXTS}
    for path in cache_dir("paraphrases").glob("*.jsonl"):
        path.unlink()
    models = replace(config.back_translation, batch_size=batch_size)
    changed = replace(config, back_translation=models)
    assert open_paraphrases(order, changed, "cpu") == expected


@pytest.mark.parametrize("change", ["num_paraphrases", "forward_prefix", "backward", "weights"])
@pytest.mark.thorough
def test_other_models_or_settings_make_other_paraphrases(
    config, translated, translation_model, tmp_path, change
):
    open_paraphrases(TEXTS, config, "cpu")
    translated.clear()
    values = {
        "num_paraphrases": 2,
        "forward_prefix": "please ",
        "backward": str(translation_model(2)),
        "weights": str(tmp_path / "copy"),
    }
    if change == "weights":
        import shutil

        folder = shutil.copytree(translation_model(0), tmp_path / "copy")
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
        change = "forward"
        values["forward"] = values["weights"]
    models = replace(config.back_translation, **{change: values[change]})
    open_paraphrases(TEXTS, replace(config, back_translation=models), "cpu")
    assert translated


def test_what_became_of_the_texts_is_said(config, caplog):
    with caplog.at_level(logging.INFO, "exp.commands.paraphrasing"):
        found = open_paraphrases([*TEXTS, "12", "nails " * 60], config, "cpu")
    none = sum(not made for made in found.values())
    total = sum(map(len, found.values()))
    assert none >= 2
    assert f"{total} paraphrases of 7 texts; {none} texts have none" in caplog.text


def test_without_a_weight_nothing_is_asked_for():
    assert open_paraphrases(TEXTS, AugmentationConfig(factor=2), "cpu") is None


# ---- from the command line -----------------------------------------------------------------------


@pytest.fixture
def words(translation_model):
    return (
        "augmentation=none",
        "augmentation.strategies.back_translation=1",
        f"{MODELS}.forward={translation_model(0)}",
        f"{MODELS}.backward={translation_model(1)}",
        "task.language=en",
    )


def test_it_is_shown_like_any_other_strategy(exp, capsys, words):
    text = "please send nails"
    assert exp("augment", f"text={text}", "output={}", *words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "back_translation" in line]
    assert len(lines) == 2
    assert not any(text in line or "no further variant" in line for line in lines)


def test_a_paraphrase_without_the_answer_is_not_shown_but_counted(exp, capsys, words):
    text = "kindly send 20 of the screws now"
    output = 'output={"product": "screws", "quantity": 20}'
    assert exp("augment", f"text={text}", output, *words) == 0
    out = capsys.readouterr().out
    assert out.count("(no further variant)") == 2
    assert "32 draws lost something of the answer" in out


@pytest.mark.parametrize(
    ("language", "models"),
    [("es", ("es-en", "en-es")), ("en", ("en-es", "es-en")), ("fr", ("fr-en", "en-fr"))],
)
def test_a_weight_without_models_is_a_mistake_that_says_what_to_type(exp, capsys, language, models):
    assert (
        exp(
            *("augment", "text=hello", f"task.language={language}"),
            "augmentation.strategies.back_translation=1",
        )
        == 2
    )
    err = capsys.readouterr().err
    for name, pair in zip(("forward", "backward"), models, strict=True):
        assert f"{MODELS}.{name}=Helsinki-NLP/opus-mt-{pair}" in err


def test_a_model_that_cannot_be_had_is_a_mistake_of_three_lines(exp, capsys, words):
    words = [word for word in words if ".forward=" not in word]
    assert exp("augment", "text=hello", *words, f"{MODELS}.forward=owner/no-such-model") == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert "no network, and no copy on this machine" in err[-3]
    assert f"where: {MODELS}.forward=owner/no-such-model" in err[-2]


def test_settings_without_a_weight_are_warned_about(exp, capsys):
    assert exp("augment", "text=hello there", "task.language=en", f"{MODELS}.batch_size=2") == 0
    assert f"{MODELS}.batch_size has no effect" in "".join(capsys.readouterr())


@pytest.mark.thorough
def test_a_run_trains_on_back_translations(exp, tmp_path, words):
    rows = [{"id": f"n{i}", "input": text, "output": {"ok": True}} for i, text in enumerate(TEXTS)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = exp(
        *("train", "model=tiny", "hardware=cpu", "hardware.precision=fp32", "task=jsonl"),
        *("hardware.cpu_threads=1", "task.name=nails", f"task.train={file}", *words),
        *("task.validation_fraction=0", "task.test_fraction=0", "augmentation.factor=2"),
        *("training.batch_size=4", "lora.r=2", "training.evaluate_base=false", "name=a"),
        *("generation.max_new_tokens=4", f"output_dir={tmp_path}", "training.epochs=1"),
    )
    assert code == 0
    log = (tmp_path / "a" / "run.log").read_text()
    made = int(log.split("augmentation, epoch 1: ")[1].split(" new variants")[0])
    assert 0 < made <= len(rows)
    assert list(cache_dir("paraphrases").glob("*.jsonl"))
