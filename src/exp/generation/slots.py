"""Keys and values of the rows that are being decoded: the shared prefix once, each row's own part.

Storage is allocated once and reused. Rows that are decoded lie in the first slots without a gap, so
that the keys of a forward are a view of the storage and need not be gathered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


def rows_in_memory(model: PreTrainedModel, row_tokens: int, most: int, share: float) -> int:
    """How many rows of so many tokens can be decoded side by side: as a GPU's memory admits.

    Args:
        model: On its device.
        row_tokens: Tokens of a row whose keys and values are kept.
        most: The answer at the most; on a CPU the answer.
        share: Share of the free memory that keys and values may take.
    """
    if model.device.type != "cuda" or not hasattr(
        model.config.get_text_config(), "num_attention_heads"
    ):
        return most
    free, _ = torch.cuda.mem_get_info(model.device)
    # What earlier rows took is free, too, though PyTorch has not given it back.
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(1, min(most, int(share * free / (row_tokens * bytes_per_token(model)))))


def bytes_per_token(model: PreTrainedModel) -> int:
    """Memory of one token's keys and values over all layers."""
    layers, heads, head_dim = _shape(model)
    return 2 * layers * heads * head_dim * model.dtype.itemsize


def _shape(model: PreTrainedModel) -> tuple[int, int, int]:
    config = model.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return config.num_hidden_layers, key_heads, head_dim


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Index tensors of one forward, shared by all its layers.

    The forward's tokens form a stream without padding, row after row. Attention over a row's own
    tokens needs a rectangle; where all rows have as many new tokens, the stream is one already.

    Attributes:
        first: Slot of the first row; the others follow.
        num_rows: Rows of this forward.
        widest: New tokens of the row that has most.
        seen: Own tokens of the longest row, the new ones included.
        input_ids: (1, tokens).
        position_ids: (1, tokens) position in the whole sequence.
        cells: (key_heads * tokens,) where each token's key goes in the flattened storage.
        bias: (rows, widest, seen) -inf where a new token must not see an own token, else 0.
        rectangle: (rows * widest,) index into the stream; short rows repeat their last token. None
            where the stream is a rectangle.
        real: (tokens,) index into the flattened rectangle, likewise.
        outputs: (outputs,) stream index of the tokens whose successor is asked for.
    """

    first: int
    num_rows: int
    widest: int
    seen: int
    input_ids: Tensor
    position_ids: Tensor
    cells: Tensor
    bias: Tensor
    rectangle: Tensor | None
    real: Tensor | None
    outputs: Tensor


class SlotStore:
    """Keys and values of all layers in one tensor.

    Attributes:
        states: (layers, 2, slots, key_heads, slot_tokens, head_dim); keys, then values.
        prefix: (layers, 2, key_heads, prefix_length, head_dim); None without a shared prefix.
    """

    def __init__(
        self, model: PreTrainedModel, num_slots: int, slot_tokens: int, prefix: Tensor | None
    ) -> None:
        layers, heads, head_dim = _shape(model)
        # Zeros and not what memory holds: a NaN there would survive a weight of 0.
        self.states = torch.zeros(
            (layers, 2, num_slots, heads, slot_tokens, head_dim),
            dtype=model.dtype,
            device=model.device,
        )
        self.prefix = prefix
        self.prefix_length = 0 if prefix is None else prefix.shape[3]
        self.num_slots, self.key_heads, self.slot_tokens = num_slots, heads, slot_tokens

    def move(self, source: int, target: int, stored: int) -> None:
        """Copy a row of `stored` tokens to another slot."""
        self.states[:, :, target, :, :stored] = self.states[:, :, source, :, :stored]

    def arrange(
        self,
        first: int,
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        num_outputs: Sequence[int],
    ) -> Arrangement:
        """Work out where the new tokens of a forward go and what they see.

        Args:
            first: Slot of the first row.
            starts: Own tokens that each row has stored already.
            tokens: New tokens of each row, at least one.
            num_outputs: For how many of its last tokens each row wants the successor.
        """
        device = self.states.device
        counts = [len(part) for part in tokens]
        rows, widest, total = len(counts), max(counts), sum(counts)
        even = total == rows * widest
        stream = [token for part in tokens for token in part]
        slots: list[int] = []
        positions: list[int] = []
        rectangle: list[int] = []
        real: list[int] = []
        outputs: list[int] = []
        done = 0
        for row, (start, count, wanted) in enumerate(zip(starts, counts, num_outputs, strict=True)):
            slots += [first + row] * count
            positions += range(start, start + count)
            outputs += range(done + count - wanted, done + count)
            if not even:
                rectangle += range(done, done + count)
                rectangle += [done + count - 1] * (widest - count)
                real += range(row * widest, row * widest + count)
            done += count
        # One transfer for all indices: each copy to a GPU waits for a round trip.
        parts = [stream, slots, positions, starts, rectangle, real, outputs]
        flat = torch.tensor([number for part in parts for number in part], device=device)
        ids, slot, position, start_of, rectangle_of, real_of, output_of = flat.split(
            [len(part) for part in parts]
        )
        heads = torch.arange(self.key_heads, device=device)[:, None]
        seen = max(map(sum, zip(starts, counts, strict=True)))
        last_seen = start_of[:, None] + torch.arange(widest, device=device)
        return Arrangement(
            first=first,
            num_rows=rows,
            widest=widest,
            seen=seen,
            input_ids=ids[None],
            position_ids=(position + self.prefix_length)[None],
            cells=((slot * self.key_heads + heads) * self.slot_tokens + position).flatten(),
            bias=torch.zeros(rows, widest, seen, device=device).masked_fill_(
                torch.arange(seen, device=device) > last_seen[:, :, None], float("-inf")
            ),
            rectangle=None if even else rectangle_of,
            real=None if even else real_of,
            outputs=output_of,
        )
