import io
import logging
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exp.redaction import REDACTED, RedactingFilter, Redactor, current_redactor, redact, redact_json


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "MY_SECRET",
        "OPENAI_API_KEY",
        "password",
    ],
)
def test_the_value_of_a_secret_variable_is_redacted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "canary-41-x")
    assert redact("before canary-41-x after") == f"before {REDACTED} after"


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "HOME", "PYTORCH_CUDA_ALLOC_CONF", "SSH_KEYBOARD"]
)
def test_the_value_of_an_ordinary_variable_stays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "ordinary-value")
    assert redact("an ordinary-value here") == "an ordinary-value here"


def test_a_secret_that_is_set_later_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("late-canary") == "late-canary"
    monkeypatch.setenv("LATE_TOKEN", "late-canary")
    assert redact("late-canary") == REDACTED


def test_a_secret_that_begins_with_another_is_redacted_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_TOKEN", "canary")
    monkeypatch.setenv("B_TOKEN", "canary-and-more")
    assert redact("canary-and-more") == REDACTED


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("https://user:canary99@host.example/path", "canary99"),
        ("https://canary99@host.example", "canary99"),
        ("proxy http://u:p@canary99@host.example:80/", "canary99"),
        ("Authorization: Bearer canary99.abcdefgh", "canary99"),
        ("{'authorization': 'Basic Y2FuYXJ5OTk='}", "Y2FuYXJ5OTk"),
        ("hf_" + "canary99" * 4, "canary99"),
        ("ghp_" + "canary99" * 4, "canary99"),
        ("github_pat_" + "canary99" * 4, "canary99"),
        ("AKIA" + "CANARY99" * 2, "CANARY99"),
        ("sk-" + "canary99" * 4, "canary99"),
        ("wandb: api key " + "0123456789abcdef0123" * 2, "0123456789abcdef0123"),
        ('passphrase="correct horse canary99"', "canary99"),
        ("{'password': 'a, b; canary99'}", "canary99"),
        ('wandb_key="' + "0123456789abcdef0123" * 2 + '"', "0123456789abcdef0123"),
        ("train model.hf_token=canary99 lora.r=8", "canary99"),
        ('{"api_key": "canary99"}', "canary99"),
        ("password: canary99", "canary99"),
        ("https://host.example/file?token=canary99", "canary99"),
        ("https://host.example/?access_token=canary99&x=1", "canary99"),
    ],
)
def test_a_secret_is_known_by_its_shape_or_by_the_name_before_it(text: str, canary: str) -> None:
    redacted = redact(text)
    assert canary not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        "https://host.example/?mail=ana@host.example",
        "escribir a ana@host.example",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "num_tokens=120 max_new_tokens: 64",
        "eos_token='<|im_end|>'",
        "step 5/10: loss 0.25",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_keys_and_values_of_json_are_redacted_and_numbers_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("X_TOKEN", "123456")
    value = {"a": [123456, "123456", None, True, 1.5], "123456": {"hf_token": "anything"}}
    assert redact_json(value) == {
        "a": [123456, REDACTED, None, True, 1.5],
        REDACTED: {"hf_token": REDACTED},
    }


def test_tokenizer_settings_are_not_taken_for_secrets() -> None:
    value = {"eos_token": "<|im_end|>", "pad_token_id": 2, "tokens": "a b"}
    assert redact_json(value) == value


@given(st.text(), st.text(min_size=6), st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_known_secret_never_gets_through(before: str, secret: str, after: str) -> None:
    redactor = Redactor.of((secret,))
    if secret in REDACTED:
        return
    assert secret not in redactor.redact(before + secret + after)


@given(st.text())
@pytest.mark.thorough
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def _form(value: object) -> object:
    return [_form(item) for item in value] if isinstance(value, list) else type(value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
@pytest.mark.thorough
def test_a_json_value_keeps_its_form(value: object) -> None:
    assert _form(redact_json(value)) == _form(value)


@pytest.mark.parametrize(
    "piece", ["a", "a.", "://a", "secret", "token=", "bearer ", "wandb ", "hf_"]
)
@pytest.mark.thorough
def test_a_long_text_takes_linear_time(piece: str) -> None:
    start = time.perf_counter()
    redact(piece * 200_000)
    assert time.perf_counter() - start < 5


def test_the_redactor_does_not_show_what_it_knows() -> None:
    assert "canary" not in repr(Redactor.of(("canary99",)))
    assert "canary" not in str(current_redactor())


def test_a_log_call_with_wrong_arguments_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-in-log")
    record = logging.LogRecord("x", logging.INFO, "", 0, "%d rows", ("canary-in-log",), None)
    assert RedactingFilter().filter(record)
    assert record.getMessage() == f"%d rows (with arguments that do not fit: ('{REDACTED}',))"


def test_a_log_record_is_redacted_with_its_arguments_and_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-in-log")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("canary-in-log")
    except ValueError:
        logger.exception("got %s", "canary-in-log", stack_info=True)
    written = stream.getvalue()
    assert "canary-in-log" not in written
    assert "ValueError" in written
    assert written.count(REDACTED) >= 2
