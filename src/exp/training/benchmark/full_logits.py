"""The step of most tools: the model's own forward and loss, with logits of every token."""

import torch
from torch import Tensor

from exp.data.batch import Batch
from exp.data.datamodule import StepBatches
from exp.training.module import LoraModule

IGNORED = -100
"""The label that transformers' loss leaves out."""


class FullLogitsModule(LoraModule):
    """Differs from LoraModule in how the loss of a micro-batch is computed, and in nothing else."""

    def _backward(self, micro_batch: Batch, batch: StepBatches, index: int) -> Tensor:
        loss: Tensor = self.model(
            input_ids=micro_batch.input_ids,
            attention_mask=micro_batch.attention_mask,
            labels=token_labels(micro_batch),
            # transformers then divides the sum by it, as LoraModule does.
            num_items_in_batch=torch.tensor(batch.step.num_labels, device=self.device),
            use_cache=False,
        ).loss
        self.manual_backward(loss)
        return loss.detach()


def token_labels(batch: Batch) -> Tensor:
    """Lay the labels of a padded batch out as transformers wants them, (examples, longest)."""
    labels = torch.full_like(batch.input_ids, IGNORED)
    # The model shifts them by one itself: a label stands where its token is, not where it is
    # predicted.
    labels.view(-1)[batch.label_rows + 1] = batch.labels
    return labels
