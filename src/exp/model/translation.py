"""Translate texts by a seq2seq model; there and back again, they come out in other words."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from exp.errors import ModelError
from exp.model.source import ModelFiles

MOST_TOKENS = 512
"""Translation models are trained on sentences; what is longer comes out cut or garbled."""

NUM_BEAMS = 4
"""Beams at the least; with fewer, the best hypothesis is often not found."""

STRIDE = 16


@dataclass(frozen=True)
class Translator:
    """A translation model in fp32 with its tokenizer.

    Attributes:
        prefix: Text before every input.
        max_tokens: Longer inputs are not translated, and longer outputs do not count.
    """

    model: Any
    tokenizer: Any
    prefix: str
    max_tokens: int

    def translate(self, texts: Sequence[str], count: int, batch_size: int) -> list[list[str]]:
        """Translate by beam search.

        A text's translations depend, up to rounding, on the text alone: the length that they may
        have follows from the text's own, and only texts that may have the same share a batch.

        Returns:
            For each text up to `count` hypotheses, the likeliest first; none where it is too long
            for the model. Those that came to no end, or to nothing, are left out.
        """
        ids = [self.tokenizer(self.prefix + text, verbose=False)["input_ids"] for text in texts]
        groups: dict[int, list[int]] = {}
        for i in sorted(range(len(texts)), key=lambda i: len(ids[i])):
            if len(ids[i]) <= self.max_tokens:
                groups.setdefault(self._limit(len(ids[i])), []).append(i)
        found: list[list[str]] = [[] for _ in texts]
        for limit, members in groups.items():
            for start in range(0, len(members), batch_size):
                batch = members[start : start + batch_size]
                made = self._generate([ids[i] for i in batch], count, limit)
                for i, hypotheses in zip(batch, made, strict=True):
                    found[i] = hypotheses
        return found

    def _limit(self, num_tokens: int) -> int:
        """Tokens that a translation may have: about twice as many, in steps."""
        return min(self.max_tokens, 2 * STRIDE * -(-num_tokens // STRIDE))

    @torch.inference_mode()
    def _generate(self, ids: Sequence[list[int]], count: int, limit: int) -> list[list[str]]:
        settings = copy.deepcopy(self.model.generation_config)
        settings.num_beams = max(NUM_BEAMS, count)
        settings.num_return_sequences = count
        settings.max_new_tokens = limit
        width = max(map(len, ids))
        padded = [row + [settings.pad_token_id] * (width - len(row)) for row in ids]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in ids]
        device = self.model.device
        sequences = self.model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=settings,
        )
        ends = settings.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        # The first token is the decoder's start, which some models share with the end.
        rows = [row if ends & set(row[1:]) else [] for row in sequences.tolist()]
        texts = [
            self.tokenizer.decode(row, skip_special_tokens=True).strip() if row else ""
            for row in rows
        ]
        return [
            [text for text in dict.fromkeys(texts[i * count : (i + 1) * count]) if text]
            for i in range(len(ids))
        ]


def load_translator(files: ModelFiles, setting: str, prefix: str, device: str) -> Translator:
    """Load a translation model and its tokenizer.

    Args:
        files: Its files, found.
        setting: The setting that names the model, for error messages.
        prefix: Text before every input.
        device: Where to compute.

    Raises:
        ModelError: The files do not hold a seq2seq model that transformers can build, or one that
            needs to be told its languages by more than a prefix.
    """
    disable_progress_bar()
    assert files.folder is not None
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True)
        model, loading = AutoModelForSeq2SeqLM.from_pretrained(
            files.folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _not_loadable(files, setting, str(error).strip().splitlines()[0]) from error
    if loading["missing_keys"]:
        raise _not_loadable(files, setting, f"it lacks {min(loading['missing_keys'])}")
    if hasattr(tokenizer, "src_lang"):
        raise _not_loadable(files, setting, "it is for many languages, and needs language codes")
    settings = model.generation_config
    if settings.pad_token_id is None or settings.eos_token_id is None:
        raise _not_loadable(files, setting, "it does not say which tokens pad and end a text")
    # What reached the limit was cut there, and a forced end would hide it.
    settings.forced_eos_token_id = None
    settings.max_length = None
    settings.do_sample = False
    settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), settings.pad_token_id})
    known = (getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length)
    max_tokens = min(MOST_TOKENS, *(length for length in known if length))
    return Translator(model.to(device).eval(), tokenizer, prefix, max_tokens)


def paraphrase(
    lines: Sequence[str],
    forward: Translator,
    backward: Translator,
    count: int,
    batch_size: int,
) -> list[tuple[str, ...]]:
    """Translate lines there and back.

    Each of the `count` likeliest translations gives one paraphrase: the likeliest translation back
    that is not the line itself, nor there already.

    Returns:
        For each line up to `count` paraphrases; none where nothing new came back.
    """
    pivots = forward.translate(lines, count, batch_size)
    returned = iter(
        backward.translate([pivot for found in pivots for pivot in found], count, batch_size)
    )
    made = []
    for line, found in zip(lines, pivots, strict=True):
        taken = {line: None}
        for _ in found:
            new = next((text for text in next(returned) if text not in taken), None)
            if new is not None:
                taken[new] = None
        made.append(tuple(taken)[1:])
    return made


def _not_loadable(files: ModelFiles, setting: str, reason: str) -> ModelError:
    return ModelError(
        f"The translation model of {setting} cannot be used: {reason}",
        where=files.origin,
        fix=f"{setting}=<a seq2seq model of one direction, like Helsinki-NLP/opus-mt-es-en>",
    )
