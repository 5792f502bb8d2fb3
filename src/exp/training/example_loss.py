"""How unlikely a model finds each example's completion: one forward over all of them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from exp.config.schema import Layout, LossOn
from exp.data.batch import collate
from exp.data.plan import BatchPlan
from exp.data.tokens import TokenStore
from exp.model.base import head_of
from exp.model.forward import label_states, prepare_for_layout
from exp.training.loss import label_loss

EXAMPLES_PER_STEP = 256
"""Examples that are sorted into forwards together; the budget of tokens decides the forwards."""


@torch.no_grad()
def example_losses(
    model: PreTrainedModel,
    store: TokenStore,
    rows: NDArray[np.int64],
    layout: Layout,
    micro_batch_tokens: int,
    advance: Callable[[int], None],
) -> NDArray[np.float64]:
    """Compute the mean cross-entropy of each example's completion, in nats per token.

    The mean, not the sum: a long completion is not hard for its length alone.

    Args:
        model: As it is; its mode and attention are put back behind.
        store: Token ids.
        rows: (examples,) which of its rows.
        layout: One that the model takes.
        micro_batch_tokens: Tokens of a forward at the most.
        advance: Called with the number of examples done.
    """
    counts = np.asarray(store.completion_lengths[rows])
    plan = BatchPlan(
        lengths=np.asarray(store.lengths[rows]),
        num_labels=counts,
        shared_tokens=len(store.head_ids),
        layout=layout,
        batch_size=EXAMPLES_PER_STEP,
        micro_batch_tokens=micro_batch_tokens,
        micro_batch_size=None,
        epochs=1.0,
        max_steps=None,
        seed=0,
    )
    sums = np.zeros(len(rows))
    head = head_of(model)
    # A model that is spread over devices ends on another one than it begins on.
    device = next(head.projection.parameters()).device
    before, was_training = model.config._attn_implementation, model.training
    model.eval()
    prepare_for_layout(model, layout)
    try:
        for number in range(plan.num_steps):
            for members in plan.step(number).micro_batches:
                rendered = [store[int(rows[member])] for member in members]
                batch = collate(rendered, [""] * len(members), layout, LossOn.completion)
                batch = batch.to(model.device)
                sizes = counts[list(members)].tolist()
                states = label_states(model, batch).to(device).split(sizes)
                labels = batch.labels.to(device).split(sizes)
                for member, own_states, own_labels in zip(members, states, labels, strict=True):
                    loss = label_loss(
                        own_states,
                        own_labels,
                        head.projection,
                        softcap=head.softcap,
                        scale=head.scale,
                    )
                    sums[member] = loss.item()
                advance(len(members))
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
    return sums / counts
