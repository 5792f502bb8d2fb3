"""Read a model's tokenizer and chat template without importing torch, or make a byte-level one."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from exp.data.render import ChatFormat
from exp.errors import ModelError
from exp.model.source import ModelFiles

BYTE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def load_chat_format(files: ModelFiles) -> ChatFormat:
    """Read tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises:
        ModelError: A file is missing or says too little.
    """
    if files.folder is None:
        return byte_chat_format()
    path = files.folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"The model has no tokenizer.json: {files.folder}",
            where=files.origin,
            fix="save a fast tokenizer into that folder (AutoTokenizer(...).save_pretrained)",
        )
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = _read_settings(files.folder / "tokenizer_config.json")
    eos_token = _token_text(settings.get("eos_token"))
    if eos_token is None:
        raise ModelError(
            "The model's tokenizer names no end-of-text token.",
            where=str(files.folder / "tokenizer_config.json"),
            fix='add "eos_token" to that file',
        )
    return ChatFormat(
        tokenizer=tokenizer,
        template=_read_template(files.folder, settings),
        bos_token=_token_text(settings.get("bos_token")),
        eos_token=eos_token,
    )


def byte_chat_format() -> ChatFormat:
    """Make a tokenizer of the 256 bytes and six control tokens, for models without files."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ("<|bos|>", "<|eos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return ChatFormat(tokenizer, BYTE_TEMPLATE, bos_token="<|bos|>", eos_token="<|eos|>")


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


def _read_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones; "default" is the one for chats
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template


def _token_text(token: str | dict[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token
