import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional

from exp.training import loss as loss_module
from exp.training.loss import label_loss

HIDDEN, VOCABULARY, LABELS = 16, 37, 29


def plain_loss(
    rows: Tensor, labels: Tensor, head: nn.Module, softcap: float | None, scale: float
) -> Tensor:
    logits = head(rows) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return functional.cross_entropy(logits, labels, reduction="sum")


def make_head(kind: str) -> nn.Module:
    head = nn.Linear(HIDDEN, VOCABULARY, bias="bias" in kind, dtype=torch.float64)
    if "adapter" in kind:
        model = nn.Sequential(head).requires_grad_(False)
        inject_adapter_in_model(PeftLoraConfig(r=2, target_modules=["0"]), model)
        model.double()
        model[0].lora_B["default"].weight.data.normal_()
        return model[0]
    return head.requires_grad_("frozen" not in kind)


@pytest.mark.parametrize("chunk_rows", [1, 8, 1000])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (2.0, 1.0), (None, 0.3), (1.5, 4.0)])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("kind", ["frozen", "frozen bias", "trainable", "adapter"])
def test_loss_and_gradients_equal_torch_s(
    kind: str,
    counted: bool,
    softcap: float | None,
    scale: float,
    chunk_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", 4 * VOCABULARY * chunk_rows)
    head = make_head(kind)
    rows = torch.randn(LABELS, HIDDEN, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (LABELS,))
    trainable = [rows, *(p for p in head.parameters() if p.requires_grad)]
    counts = torch.randint(1, 5, (LABELS,)) if counted else None
    found = label_loss(rows, labels, head, counts=counts, softcap=softcap, scale=scale)
    often = torch.ones(LABELS, dtype=torch.long) if counts is None else counts
    each = [tensor.repeat_interleave(often, dim=0) for tensor in (rows, labels)]
    expected = plain_loss(each[0], each[1], head, softcap, scale)
    # The logits are fp32, as they are in training.
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(found / 7, trainable)
    expected_gradients = torch.autograd.grad(expected / 7, trainable)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-6)


def test_the_loss_is_a_sum_so_parts_add_up() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY).requires_grad_(False)
    rows, labels = torch.randn(LABELS, HIDDEN), torch.randint(0, VOCABULARY, (LABELS,))
    parts = label_loss(rows[:11], labels[:11], head) + label_loss(rows[11:], labels[11:], head)
    torch.testing.assert_close(parts, label_loss(rows, labels, head))


def test_no_logits_are_kept_for_the_backward() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY).requires_grad_(False)
    rows = torch.randn(LABELS, HIDDEN, requires_grad=True)
    kept: list[torch.Size] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        label_loss(rows, torch.zeros(LABELS, dtype=torch.long), head)
    weight = (HIDDEN, VOCABULARY)  # there anyway
    assert [shape for shape in kept if shape != weight] == [(LABELS, HIDDEN)]


def test_the_scale_of_a_gradient_scaler_does_not_overflow() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY).half().requires_grad_(False)
    rows = torch.randn(1, HIDDEN).half().mul_(0.01).requires_grad_()
    loss = label_loss(rows, torch.tensor([3]), head)
    (plain,) = torch.autograd.grad(loss, rows, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * 2.0**17, rows)  # 2^17 itself is beyond fp16
    expected = plain.float() * 2.0**17
    representable = expected.abs() < 65504
    assert representable.any()
    torch.testing.assert_close(
        scaled.float()[representable], expected[representable], rtol=1e-3, atol=0
    )


def test_confident_rows_stay_finite() -> None:
    head = nn.Linear(2, 3, bias=False).requires_grad_(False)
    head.weight.data = torch.tensor([[1e4, 0.0], [0.0, 1e4], [0.0, 0.0]])
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = label_loss(rows, torch.tensor([0, 1]), head)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1e4)
    assert rows.grad is not None
    assert bool(rows.grad.isfinite().all())


def test_a_trained_copy_of_the_head_works_on_rows_of_16_bits() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY)
    rows = torch.randn(LABELS, HIDDEN).bfloat16().requires_grad_()
    labels = torch.randint(0, VOCABULARY, (LABELS,))
    label_loss(rows, labels, head).backward()
    assert rows.grad is not None
    assert (rows.grad.dtype, head.weight.grad.dtype) == (torch.bfloat16, torch.float32)
