"""Greedy decoding of many rows: the shared prefix computed once, slots refilled as rows finish.

Rows are decoded in order of length, several side by side. All new tokens of a forward form one
stream without padding; logits are computed at each row's last token only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from exp.data.batch import SHORTEST_SHARED_PREFIX, shared_prefix_length
from exp.generation.attention import DECODE
from exp.generation.slots import Cut, SlotStore
from exp.model.base import body_of, head_of, logits_of

PREFILL_TOKENS = 2048
"""New tokens of a forward that fills slots, at the most."""

REFILL_SHARE = 0.125
"""Slots are refilled as soon as this share of them is free: rarely enough that a prefill is worth
its launch, often enough that slots do not idle."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The tokens behind a prompt, without the stop token, and why they end."""

    token_ids: tuple[int, ...]
    finish_reason: str


@dataclass(slots=True)
class _Row:
    """A row in a slot: its number, how many own tokens are stored, and what came out."""

    number: int
    stored: int
    produced: list[int]


def generate_greedily(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    num_slots: int,
    on_finished: Callable[[int, Completion], None],
) -> None:
    """Decode all prompts; call `on_finished(row number, completion)` as each row ends.

    Args:
        model: A causal LM in eval mode, merged if it has an adapter.
        prompts: Token ids; the longest common prefix is computed once.
        max_new_tokens: Rows that reach it are cut, with finish reason "length".
        stop_ids: Tokens that end a row, with finish reason "stop".
        num_slots: Rows that are decoded side by side.
        on_finished: Gets each row once, in the order in which rows end.
    """
    if not prompts:
        return
    implementation = model.config._attn_implementation
    model.set_attn_implementation(DECODE)
    try:
        with torch.inference_mode():
            _Decoder(model, prompts, max_new_tokens, stop_ids, num_slots, on_finished).run()
    finally:
        model.set_attn_implementation(implementation)


class _Decoder:
    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int],
        num_slots: int,
        on_finished: Callable[[int, Completion], None],
    ) -> None:
        self.model, self.body, self.head = model, body_of(model), head_of(model)
        self.prompts = prompts
        self.max_new_tokens = max_new_tokens
        self.stop_ids = frozenset(stop_ids)
        self.on_finished = on_finished
        # One token of each prompt stays its own, as the first forward of a row needs a new token.
        shared = shared_prefix_length(prompts)
        shared = min(shared, min(map(len, prompts)) - 1)
        self.prefix_length = shared if shared >= SHORTEST_SHARED_PREFIX else 0
        longest = max(map(len, prompts)) - self.prefix_length + max_new_tokens
        self.num_slots = min(num_slots, len(prompts))
        self.store = SlotStore(
            model, self.num_slots, max(longest, self.prefix_length), self.prefix_length
        )
        # Longest first: the longest row decides the memory, and short ones fill the gaps at the end.
        self.waiting = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        self.free = list(range(self.num_slots))
        self.active: dict[int, _Row] = {}

    def run(self) -> None:
        if self.prefix_length:
            self._forward([0], [self.prompts[0][: self.prefix_length]], [0], prefix_length=0)
            self.store.take_prefix(slot=0)
        while self.waiting or self.active:
            idle = len(self.free) >= max(1, REFILL_SHARE * self.num_slots)
            if self.waiting and (idle or not self.active):
                self._refill()
            self._decode()

    def _refill(self) -> None:
        """Give free slots to waiting rows, in forwards of bounded size."""
        while self.free and self.waiting:
            slots, tokens, total = [], [], 0
            while self.free and self.waiting:
                own = self.prompts[self.waiting[-1]][self.prefix_length :]
                if tokens and total + len(own) > PREFILL_TOKENS:
                    break
                number, slot = self.waiting.pop(), self.free.pop()
                self.active[slot] = _Row(number, stored=len(own), produced=[])
                slots.append(slot)
                tokens.append(own)
                total += len(own)
            chosen = self._forward(slots, tokens, [0] * len(slots), self.prefix_length)
            self._append(slots, chosen.tolist())

    def _decode(self) -> None:
        """Produce one token for every active row."""
        slots = sorted(self.active)
        if not slots:
            return
        rows = [self.active[slot] for slot in slots]
        starts = [row.stored for row in rows]
        chosen = self._forward(
            slots, [[row.produced[-1]] for row in rows], starts, self.prefix_length
        )
        for row in rows:
            row.stored += 1
        self._append(slots, chosen.tolist())

    def _append(self, slots: list[int], chosen: list[int]) -> None:
        for slot, token in zip(slots, chosen, strict=True):
            row = self.active[slot]
            stopped = token in self.stop_ids
            if not stopped:
                row.produced.append(token)
            if stopped or len(row.produced) == self.max_new_tokens:
                del self.active[slot]
                self.free.append(slot)
                reason = "stop" if stopped else "length"
                self.on_finished(row.number, Completion(tuple(row.produced), reason))

    def _forward(
        self,
        slots: list[int],
        tokens: Sequence[Sequence[int]],
        starts: list[int],
        prefix_length: int,
    ) -> Tensor:
        """Compute new tokens of some slots; return the likeliest next token of each, (slots,)."""
        cut = Cut(
            slots=torch.tensor(slots),
            starts=torch.tensor(starts),
            counts=torch.tensor([len(part) for part in tokens]),
        )
        arrangement = self.store.arrange(cut, prefix_length)
        stream = torch.tensor([[token for part in tokens for token in part]])
        hidden = self.body(
            input_ids=stream.to(self.model.device),
            position_ids=arrangement.position_ids,
            use_cache=False,
            store=self.store,
            arrangement=arrangement,
        ).last_hidden_state
        return logits_of(self.head, hidden[0, arrangement.last_rows]).argmax(dim=-1)
