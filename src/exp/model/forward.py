"""Run one Batch through the decoder and pick the rows that carry loss."""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from exp.config.schema import Layout
from exp.data.batch import Batch
from exp.model.attention import STREAM
from exp.model.base import body_of


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout that a model will be fed in, and why it is not the one that was asked for."""

    layout: Layout
    reason: str | None = None


def choose_layout(
    model: PreTrainedModel, wanted: Layout, longest_example_tokens: int
) -> LayoutChoice:
    """Fall back to padded rows where a stream would not be exact.

    A stream's attention knows full causal attention only. Layers of another kind see the same
    tokens as long as no example is longer than their window; recurrent layers never do.
    """
    if wanted is Layout.padded:
        return LayoutChoice(Layout.padded)
    if not getattr(model, "_supports_attention_backend", False):
        return LayoutChoice(
            Layout.padded, f"{type(model).__name__} does not take its attention from outside"
        )
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    foreign = kinds - {"full_attention", "sliding_attention"}
    if foreign:
        return LayoutChoice(Layout.padded, f"the model has layers of kind {', '.join(foreign)}")
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds or getattr(config, "use_sliding_window", window is not None)
    if window and slides and longest_example_tokens > window:
        return LayoutChoice(
            Layout.padded,
            f"an example of {longest_example_tokens} tokens is longer than the model's sliding "
            f"window of {window}",
        )
    return LayoutChoice(wanted)


def prepare_for_layout(model: PreTrainedModel, layout: Layout) -> None:
    """Give the model the attention function that the layout's batches need."""
    model.set_attn_implementation("sdpa" if layout is Layout.padded else STREAM)


def label_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Compute the final hidden states at the label rows, (labels, hidden).

    The model must have been prepared for the batch's layout.
    """
    extra = {} if batch.segments is None else {"segments": batch.segments}
    hidden = body_of(model)(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        **extra,
    ).last_hidden_state
    states: Tensor = hidden.flatten(0, 1).index_select(0, batch.label_rows)
    return states
