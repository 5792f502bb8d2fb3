"""Cross-entropy over label rows only; its gradient is computed in the forward.

No logits of unlabelled rows ever exist, and none are kept: while the head is frozen, the gradient
with respect to the hidden rows is all that the backward will ask for, so it is computed beside the
loss, chunk by chunk, and the logits are dropped at once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from exp.data.batch import Batch
from exp.model.base import head_of, project
from exp.model.forward import label_states

LOGITS_BYTES = 128 * 2**20
"""Largest chunk of fp32 logits that exists at a time, in bytes."""

CPU_LOGITS_BYTES = 24 * 2**20
"""The same on a CPU, where the passes over the logits are faster while they stay in its cache."""


def batch_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Sum the cross-entropy over all labels of a batch, in nats; see `label_loss`.

    Args:
        model: Prepared for the layout of the batch.
        batch: On the model's first device.
    """
    head = head_of(model)
    # A model that is spread over devices ends on another one than it begins on.
    device = next(head.projection.parameters()).device
    counts = batch.label_counts
    return label_loss(
        label_states(model, batch).to(device),
        batch.labels.to(device),
        head.projection,
        counts=None if counts is None else counts.to(device),
        softcap=head.softcap,
        scale=head.scale,
    )


def label_loss(
    rows: Tensor,
    labels: Tensor,
    head: nn.Module,
    *,
    counts: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Sum the cross-entropy of the labels, in nats.

    The sum is returned, not the mean: the caller divides by the labels of the whole step, so that
    cutting a step into micro-batches does not change its gradient.

    Args:
        rows: (labels, hidden) final hidden states at the label rows.
        labels: (labels,) token ids to predict.
        head: The output projection. Where it is frozen its gradient is computed at once, else its
            logits are computed again in the backward.
        counts: (labels,) how often each label counts; None: once.
        softcap: Logits are squashed to (-softcap, softcap), as in Gemma 2.
        scale: Logits are multiplied by it, before the softcap.

    Returns:
        A float32 scalar.
    """
    if not any(p.requires_grad for p in head.parameters()):
        loss: Tensor = _FrozenHeadLoss.apply(rows, labels, head, counts, softcap, scale)
        return loss

    def chunk_loss(chunk: Tensor, chunk_labels: Tensor, chunk_counts: Tensor | int) -> Tensor:
        logits = _squash(project(head, chunk).float() * scale, softcap)
        each = functional.cross_entropy(logits, chunk_labels, reduction="none")
        return (each * chunk_counts).sum()

    chunk_rows = _chunk_rows(_vocabulary(head), rows.device)
    total = torch.zeros((), dtype=torch.float32, device=rows.device)
    for start in range(0, len(rows), chunk_rows):
        chunk = slice(start, start + chunk_rows)
        often = 1 if counts is None else counts[chunk]
        part = checkpoint(chunk_loss, rows[chunk], labels[chunk], often, use_reentrant=False)
        total = total + part
    return total


def _vocabulary(head: nn.Module) -> int:
    return int(head.out_features)  # type: ignore[arg-type]


def _chunk_rows(vocabulary: int, device: torch.device) -> int:
    budget = CPU_LOGITS_BYTES if device.type == "cpu" else LOGITS_BYTES
    return max(1, budget // (4 * vocabulary))


def _squash(logits: Tensor, softcap: float | None) -> Tensor:
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _FrozenHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        labels: Tensor,
        head: nn.Module,
        counts: Tensor | None,
        softcap: float | None,
        scale: float,
    ) -> Tensor:
        chunk_rows = _chunk_rows(_vocabulary(head), rows.device)
        loss = torch.zeros((), dtype=torch.float32, device=rows.device)
        gradient = torch.empty_like(rows)
        for start in range(0, len(rows), chunk_rows):
            chunk = slice(start, start + chunk_rows)
            with torch.enable_grad():
                part = rows[chunk].detach().requires_grad_(ctx.needs_input_grad[0])
                # A view: what watches modules, as FLOP counting does, refuses a leaf here.
                projected = project(head, part.view_as(part))
            logits = projected.detach().float()
            if scale != 1.0:
                logits = logits * scale
            logits = _squash(logits, softcap)
            target = labels[chunk].unsqueeze(1)
            # The likeliest token's probability is 1 / sum(exp(logit - largest)), so the softmax
            # that the gradient needs anyway yields the loss without a pass of its own.
            largest = logits.amax(dim=1, keepdim=True)
            at_label = logits.gather(1, target)
            slope = torch.softmax(logits, dim=1)
            log_total = largest - slope.amax(dim=1, keepdim=True).log()
            each = (log_total - at_label).squeeze(1)
            loss += (each if counts is None else each * counts[chunk]).sum()
            if not ctx.needs_input_grad[0]:
                continue
            slope.scatter_add_(1, target, torch.full_like(at_label, -1.0))
            if softcap is not None:
                slope *= 1 - (logits / softcap).square()
            (gradient[chunk],) = torch.autograd.grad(projected, part, slope.to(projected.dtype))
        if scale != 1.0:
            gradient *= scale
        if counts is not None:
            gradient *= counts.unsqueeze(1)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # The slope holds the scale of a gradient scaler, which fp16 itself may not hold.
        scaled = (gradient.float() * grad_outputs[0]).to(gradient.dtype)
        return scaled, None, None, None, None, None
