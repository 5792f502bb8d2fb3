"""Greedy decoding of many rows: a shared prefix computed once, slots refilled as rows finish.

Rows are decoded in order of length, several side by side. A forward computes for each of its rows
the tokens that are known but not stored yet, and a draft of what may follow; the new tokens of all
rows form one stream without padding. Logits are computed where a token is to be chosen, nowhere
else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from exp.data.batch import SHORTEST_SHARED_PREFIX, shared_prefix_length
from exp.generation.attention import DECODE
from exp.generation.constraint import Constraint
from exp.generation.drafting import Draft, Drafter, choose_lengths, narrow
from exp.generation.row import Completion, Row
from exp.generation.slots import SlotStore, rows_in_memory
from exp.model.base import body_of, head_of, logits_of

PREFILL_TOKENS = 2048
"""New tokens of a forward that fills slots, at the most."""

MOST_SCORES = 2**26
"""Attention scores of one layer that a forward may hold at once: 256 MiB in fp32."""

MOST_LOGITS = 2**24
CPU_MOST_LOGITS = 6 * 2**20
"""Logits computed at once: 64 MiB in fp32, and on a CPU what its cache holds of them. Without a
bound the longest drafts would decide how much memory a long file takes."""

REFILL_SHARE = 0.125
"""Slots are refilled as soon as this share of them is free: rarely enough that a prefill is worth
its launch, often enough that slots do not idle."""

MEMORY_SHARE = 0.7
"""Share of a GPU's free memory that slots may take; the rest is for activations and logits."""

CPU_FORWARD_TOKENS = 32.0
GPU_FORWARD_TOKENS = 512.0
"""What a forward costs besides its tokens, in the time of one: reading weights, starting kernels.
The first is measured (docs/log.md), the second an estimate from the number of launches."""

OnFinished = Callable[[int, Completion], None]


@dataclass(slots=True)
class Work:
    """What decoding took so far, in forwards and tokens."""

    forwards: int = 0
    computed_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0


class Engine:
    """Decodes prompts with one state of a model's weights.

    Lives as long as the weights stay as they are: the prefix that prompts share is kept from call
    to call.

    Args:
        model: A causal LM in eval mode, merged if it has an adapter.
        max_new_tokens: Rows that reach it are cut, with finish reason "length".
        stop_ids: Tokens that end a row, with finish reason "stop".
        num_slots: Rows that are decoded side by side; fewer where a GPU's memory asks for it.
        drafter: Proposes continuations; None computes token by token.
        constraint: What completions must obey.
        share_prefix: Compute what all prompts begin with once.
        refill: Give slots to waiting rows as they become free, not when all are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        num_slots: int,
        drafter: Drafter | None = None,
        constraint: Constraint | None = None,
        share_prefix: bool = True,
        refill: bool = True,
    ) -> None:
        self.model, self.body, self.head = model, body_of(model), head_of(model)
        self.max_new_tokens, self.stop_ids = max_new_tokens, frozenset(stop_ids)
        self.num_slots = num_slots
        self.drafter, self.constraint = drafter, constraint
        self.share_prefix, self.refill = share_prefix, refill
        self.work = Work()
        self._prefix_ids: tuple[int, ...] = ()
        self._prefix: Tensor | None = None
        config = model.config.get_text_config()
        self._heads, self._vocabulary = config.num_attention_heads, config.vocab_size

    def generate(self, prompts: Sequence[Sequence[int]], on_finished: OnFinished) -> None:
        """Decode all prompts; call `on_finished(row number, completion)` as each row ends."""
        if not prompts:
            return
        implementation = self.model.config._attn_implementation
        self.model.set_attn_implementation(DECODE)
        try:
            with torch.inference_mode():
                self._decode(prompts, on_finished)
        finally:
            self.model.set_attn_implementation(implementation)

    def _decode(self, prompts: Sequence[Sequence[int]], on_finished: OnFinished) -> None:
        prefix = self._prefix_states(prompts)
        shared = 0 if prefix is None else prefix.shape[3]
        slot_tokens = max(map(len, prompts)) - shared + self.max_new_tokens
        wanted = min(self.num_slots, len(prompts))
        num_slots = rows_in_memory(self.model, slot_tokens, wanted, MEMORY_SHARE)
        store = SlotStore(self.model, num_slots, slot_tokens, prefix)
        # Equal calls draft equally: nothing is carried over from the call before.
        drafter = None if self.drafter is None else self.drafter.fresh()
        refill_at = max(1, REFILL_SHARE * num_slots) if self.refill else num_slots
        # The longest rows are taken first, from the end; short ones fill the gaps at the end.
        waiting = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        rows: list[Row] = []
        while waiting or rows:
            first = len(rows)
            if waiting and (not rows or num_slots - first >= refill_at):
                while waiting and len(rows) < num_slots:
                    number = waiting.pop()
                    rows.append(self._row(number, prompts[number], shared, drafter))
                self._fill(store, rows, first, drafter)
            else:
                self._advance(store, rows, 0, len(rows), drafter)
            self._retire(store, rows, on_finished)

    def _row(self, number: int, prompt: Sequence[int], shared: int, drafter: Drafter | None) -> Row:
        own = prompt[shared:]
        return Row(
            number,
            known=list(own),
            prompt_length=len(own),
            stop_ids=self.stop_ids,
            max_new_tokens=self.max_new_tokens,
            guide=None if self.constraint is None else self.constraint.guide(prompt),
            book=None if drafter is None else drafter.copybook(own),
        )

    def _prefix_states(self, prompts: Sequence[Sequence[int]]) -> Tensor | None:
        """Keys and values of what all prompts begin with, computed or from the call before."""
        if not self.share_prefix:
            return None
        # One token of each prompt stays its own, as the first forward of a row needs a new token.
        length = min(shared_prefix_length(prompts), min(map(len, prompts)) - 1)
        if length < SHORTEST_SHARED_PREFIX:
            return None
        ids = tuple(prompts[0][:length])
        kept = shared_prefix_length([ids, self._prefix_ids])
        if self._prefix is None or length - kept >= SHORTEST_SHARED_PREFIX:
            store = SlotStore(self.model, 1, length, None)
            piece = self._budget(length)
            for start in range(0, length, piece):
                self._compute(store, 0, [start], [ids[start : start + piece]], [0])
            self._prefix_ids, self._prefix, kept = ids, store.states[:, :, 0], length
        return self._prefix[:, :, :, :kept].contiguous()

    def _fill(self, store: SlotStore, rows: list[Row], first: int, drafter: Drafter | None) -> None:
        """Compute the prompts of the rows from `first` on, in forwards of bounded size."""
        budget = self._budget(store.prefix_length + store.slot_tokens)
        while first < len(rows):
            row = rows[first]
            while len(row.known) - row.stored > budget:
                piece = row.known[row.stored : row.stored + budget]
                self._compute(store, first, [row.stored], [piece], [0])
                row.stored += budget
            last, total = first, 0
            while last < len(rows):
                total += len(rows[last].known) - rows[last].stored
                if total > budget and last > first:
                    break
                last += 1
            self._advance(store, rows, first, last, drafter)
            first = last

    def _advance(
        self, store: SlotStore, rows: list[Row], first: int, last: int, drafter: Drafter | None
    ) -> None:
        """Compute what is pending of rows in neighbouring slots, and take in what follows."""
        chosen = rows[first:last]
        drafts = [Draft() for _ in chosen]
        lengths = [0] * len(chosen)
        if drafter is not None:
            room = self._budget(store.prefix_length + store.slot_tokens) // len(chosen)
            for place, row in enumerate(chosen):
                assert row.book is not None
                drafts[place] = drafter.propose(row.book, row.produced, min(room, row.remaining))
            lengths = narrow(choose_lengths(drafts, self._forward_tokens))
        starts = [row.stored for row in chosen]
        tokens = [
            row.expect(draft, fed) for row, draft, fed in zip(chosen, drafts, lengths, strict=True)
        ]
        states = self._compute(store, first, starts, tokens, [fed + 1 for fed in lengths])
        self._absorb(chosen, states)
        for row in chosen:
            self.work.drafted_tokens += row.fed
            self.work.accepted_tokens += row.accepted
            if drafter is not None:
                drafter.judge(row.draft, row.came)

    def _absorb(self, rows: Sequence[Row], states: Tensor) -> None:
        """Choose a token behind each output state, and let the rows take them in.

        The likeliest token of all is the likeliest admitted one wherever it is admitted, so a
        constraint costs a mask only where it is not.
        """
        every = self._likeliest(states).tolist()
        ends, done = [], 0
        for row in rows:
            ends.append((row, done, done + row.fed + 1))
            done += row.fed + 1
        while ends:
            refused = []
            for row, start, end in ends:
                place = row.absorb(every[start:end])
                if place is not None:
                    refused.append((row, start, end, start + place))
            if not refused:
                return
            admitted = [row.guide.admitted() for row, *_ in refused if row.guide is not None]
            places = [place for *_, place in refused]
            replaced = self._likeliest(states[places], admitted).tolist()
            for place, token in zip(places, replaced, strict=True):
                every[place] = token
            ends = [(row, start, end) for row, start, end, _ in refused]

    def _likeliest(
        self, states: Tensor, admitted: Sequence[NDArray[np.bool_]] | None = None
    ) -> Tensor:
        """(outputs,) the likeliest token behind each state, among the admitted ones."""
        on_cpu = self.model.device.type == "cpu"
        piece = max(1, (CPU_MOST_LOGITS if on_cpu else MOST_LOGITS) // self._vocabulary)
        found = []
        for start in range(0, len(states), piece):
            logits = logits_of(self.head, states[start : start + piece])
            if admitted is not None:
                mask = torch.from_numpy(np.stack(admitted[start : start + piece])).to(logits.device)
                logits[:, mask.shape[1] :] = float("-inf")
                logits[:, : mask.shape[1]].masked_fill_(~mask, float("-inf"))
            found.append(logits.argmax(dim=-1))
        return torch.cat(found)

    def _compute(
        self,
        store: SlotStore,
        first: int,
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        num_outputs: Sequence[int],
    ) -> Tensor:
        """Compute new tokens of neighbouring slots; return the final states asked for."""
        arrangement = store.arrange(first, starts, tokens, num_outputs)
        self.work.forwards += 1
        self.work.computed_tokens += arrangement.input_ids.shape[1]
        hidden: Tensor = self.body(
            input_ids=arrangement.input_ids,
            position_ids=arrangement.position_ids,
            use_cache=False,
            store=store,
            arrangement=arrangement,
        ).last_hidden_state
        return hidden[0, arrangement.outputs]

    def _retire(self, store: SlotStore, rows: list[Row], on_finished: OnFinished) -> None:
        """Hand finished rows over, and close the gaps that they leave."""
        for row in rows:
            if row.finish_reason is not None:
                self.work.forced_tokens += row.num_forced
                on_finished(row.number, row.completion)
        slot = 0
        while slot < len(rows):
            if rows[slot].finish_reason is None:
                slot += 1
                continue
            last = rows.pop()
            if slot < len(rows) and last.finish_reason is None:
                store.move(len(rows), slot, last.stored)
                rows[slot] = last

    def _budget(self, longest: int) -> int:
        """New tokens of a forward at the most, where tokens see `longest` others."""
        return max(1, min(PREFILL_TOKENS, MOST_SCORES // (self._heads * longest)))

    @property
    def _forward_tokens(self) -> float:
        return CPU_FORWARD_TOKENS if self.model.device.type == "cpu" else GPU_FORWARD_TOKENS
