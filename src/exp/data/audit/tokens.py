"""Token ids as a training would use them, compared with what inference would make of the row."""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from exp.config.schema import OnOverlong
from exp.data.audit.checks import (
    CONTROL_TOKEN,
    DIFFERENT_PROMPT,
    DOUBLE_BOS,
    NO_END_TOKEN,
    NO_LABEL,
    OVER_LONG,
    UNKNOWN_TOKEN,
    Severity,
)
from exp.data.audit.rows import AuditedRow, AuditedSplit
from exp.data.audit.settings import AuditSettings
from exp.data.audit.tally import Tally
from exp.data.render import Renderer
from exp.records import Rendered


class TokenChecks:
    """The checks of token ids, row by row."""

    def __init__(self, renderer: Renderer, tally: Tally) -> None:
        self._renderer, self._tally = renderer, tally
        tokenizer = renderer.tokenizer
        self._unknown_id = _unknown_id(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        control = {number for number, token in added.items() if token.special}
        self._control_ids = frozenset(control - {self._unknown_id})

    def look_at(self, rows: Sequence[AuditedRow]) -> None:
        """Check some rows of a split."""
        inference = self._renderer.render_prompts([row.example.input for row in rows])
        for row, prompt_ids in zip(rows, inference, strict=True):
            if row.rendered is not None:
                self._look_at(row, row.rendered, prompt_ids)

    def _look_at(self, row: AuditedRow, rendered: Rendered, prompt_ids: tuple[int, ...]) -> None:
        renderer, add = self._renderer, self._tally.add
        completion = rendered.completion_ids
        if not completion:
            add(NO_LABEL, row, "its completion has no token")
        elif completion[-1] != renderer.end_id:
            last = renderer.tokenizer.id_to_token(completion[-1])
            end = renderer.tokenizer.id_to_token(renderer.end_id)
            add(NO_END_TOKEN, row, f"it ends with {last!r}, not with {end!r}")
        if rendered.prompt_ids != prompt_ids:
            add(DIFFERENT_PROMPT, row, _difference(rendered.prompt_ids, prompt_ids))
            return  # where its own part begins and ends is not known
        head, tail = len(renderer.head_ids), len(renderer.tail_ids)
        own = rendered.prompt_ids[head : len(rendered.prompt_ids) - tail] + completion[:-1]
        control = self._control_ids.intersection(own)
        bos_id = renderer.bos_id
        if bos_id is not None and (bos_id in control or _doubled(rendered.prompt_ids, bos_id)):
            add(DOUBLE_BOS, row, f"BOS is {renderer.tokenizer.id_to_token(bos_id)!r}")
        if foreign := control - {bos_id}:
            names = ", ".join(repr(renderer.tokenizer.id_to_token(one)) for one in sorted(foreign))
            add(CONTROL_TOKEN, row, names)
        if self._unknown_id is not None and (count := own.count(self._unknown_id)):
            add(UNKNOWN_TOKEN, row, f"{count} of its tokens stand for what the tokenizer lacks")


def check_lengths(split: AuditedSplit, settings: AuditSettings, tally: Tally) -> None:
    """Find the rows that are longer than the limit; only training rows can stop a training."""
    limit = settings.max_length_tokens
    if limit is None or not len(split.store):
        return
    lengths = split.store.lengths
    # Template, instruction, completion and one token of the input cannot be cut.
    shortest = lengths - split.store.input_lengths + 1
    stops = False
    for stored in np.flatnonzero(lengths > limit).tolist():
        cut = settings.on_overlong is OnOverlong.truncate_prompt
        stops |= settings.on_overlong is OnOverlong.error or (cut and shortest[stored] > limit)
        detail = f"{int(lengths[stored]):,} tokens"
        if cut and shortest[stored] > limit:
            detail += f", {int(shortest[stored]):,} of them besides its input"
        example_id = split.store.example_ids[stored]
        tally.add_at(OVER_LONG, split.name, split.number_of(stored), example_id, detail)
    severity = Severity.error if stops and split.name == "train" else Severity.warning
    tally.describe(OVER_LONG, split.name, severity, limit=limit, longest=int(lengths.max()))


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """Return the token for what a tokenizer cannot write; None where it can write everything."""
    model = json.loads(tokenizer.to_str())["model"]
    token, number = model.get("unk_token"), model.get("unk_id")
    if token is not None:
        number = tokenizer.token_to_id(token)
    return None if number is None else int(number)


def _doubled(ids: tuple[int, ...], bos_id: int) -> bool:
    # Some templates open every turn with the BOS token; what no template wants is two at once.
    return bos_id in ids and (bos_id, bos_id) in pairwise(ids)


def _difference(trained: tuple[int, ...], inference: tuple[int, ...]) -> str:
    pairs = enumerate(zip(trained, inference, strict=False))
    first = next((at for at, (one, other) in pairs if one != other), None)
    if first is None:
        return f"{len(trained):,} tokens in training, {len(inference):,} in inference"
    return f"they part at token {first + 1:,}"
