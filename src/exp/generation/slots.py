"""Keys and values of the rows that are being decoded: the shared prefix once, each row's own part.

Storage is allocated once and reused: a row takes a slot, grows in it, and leaves it to the next row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Cut:
    """Which tokens one forward computes: some new tokens for each of some slots, as one stream.

    Attributes:
        slots: (rows,) slot of each row.
        starts: (rows,) own tokens that each slot holds already.
        counts: (rows,) new tokens of each row, at least 1.
    """

    slots: Tensor
    starts: Tensor
    counts: Tensor


class SlotStore:
    """Keys and values by layer, and the plan of the forward that is under way.

    Attributes:
        prefix_length: Tokens of the shared prefix; every row attends to them.
    """

    def __init__(
        self, model: PreTrainedModel, num_slots: int, slot_tokens: int, prefix_length: int
    ) -> None:
        config = model.config.get_text_config()
        heads = config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        options = {"dtype": model.dtype, "device": model.device}
        layers = range(config.num_hidden_layers)
        own, shared = (num_slots, heads, slot_tokens, head_dim), (heads, prefix_length, head_dim)
        self.keys = [torch.zeros(own, **options) for _ in layers]
        self.values = [torch.zeros(own, **options) for _ in layers]
        self.prefix_keys = [torch.zeros(shared, **options) for _ in layers]
        self.prefix_values = [torch.zeros(shared, **options) for _ in layers]
        self.prefix_length = prefix_length

    def take_prefix(self, slot: int) -> None:
        """Make what a slot holds at its start the shared prefix."""
        length = self.prefix_length
        for layer in range(len(self.keys)):
            self.prefix_keys[layer].copy_(self.keys[layer][slot, :, :length])
            self.prefix_values[layer].copy_(self.values[layer][slot, :, :length])

    def arrange(self, cut: Cut, prefix_length: int) -> "Arrangement":
        """Work out the index tensors that all layers of one forward share."""
        device = self.keys[0].device
        rows, widest = len(cut.slots), int(cut.counts.max())
        seen = int((cut.starts + cut.counts).max())
        within = torch.arange(widest)
        real = within < cut.counts[:, None]
        positions = cut.starts[:, None] + within  # own position of each new token
        stream_starts = torch.cumsum(cut.counts, 0) - cut.counts
        rectangle = stream_starts[:, None] + torch.minimum(within, cut.counts[:, None] - 1)
        visible = torch.arange(seen) <= positions[:, :, None]
        return Arrangement(
            prefix_length=prefix_length,
            seen=seen,
            slots=cut.slots.to(device),
            position_ids=(positions[real] + prefix_length)[None].to(device),
            token_slots=cut.slots[:, None].expand(rows, widest)[real].to(device),
            token_positions=positions[real].to(device),
            rectangle=rectangle.to(device),
            real=real.view(-1).nonzero().view(-1).to(device),
            hidden=(~visible).to(device),
            last_rows=(stream_starts + cut.counts - 1).to(device),
        )


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Index tensors of one forward over a stream of new tokens.

    Attributes:
        prefix_length: Prefix tokens that every row sees.
        seen: Own tokens of the longest row, the new ones included.
        slots: (rows,) slot of each row.
        position_ids: (1, tokens) position in the whole sequence.
        token_slots: (tokens,) slot of each stream token.
        token_positions: (tokens,) own position of each stream token in its slot.
        rectangle: (rows, widest) index into the stream; short rows repeat their last token.
        real: (tokens,) index into the flattened rectangle.
        hidden: (rows, widest, seen) True where a new token must not see an own token.
        last_rows: (rows,) stream index of each row's last new token.
    """

    prefix_length: int
    seen: int
    slots: Tensor
    position_ids: Tensor
    token_slots: Tensor
    token_positions: Tensor
    rectangle: Tensor
    real: Tensor
    hidden: Tensor
    last_rows: Tensor
