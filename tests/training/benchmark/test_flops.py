import pytest
from torch.utils.flop_counter import FlopCounterMode

from exp.config.schema import Layout, LossOn
from exp.data.batch import collate
from exp.model.base import load_base
from exp.model.forward import prepare_for_layout
from exp.model.lora import attach_lora
from exp.training.benchmark.flops import ModelSize, model_size, useful_flops
from exp.training.benchmark.workload import ladder_plan
from exp.training.loss import batch_loss


@pytest.fixture
def adapted(job):
    model = load_base(job.config.model, job.files, job.hardware.precision, seed=0)
    prepare_for_layout(model, Layout.shared_prefix)
    # PyTorch's counter does not know the in-place products of the fused forward.
    return attach_lora(model, job.config.lora, seed=0, fuse=False)


def test_the_size_of_a_model_is_read_off_its_layers(adapted):
    attention = 64 * (64 + 32 + 32) + 64 * 64
    assert model_size(adapted) == ModelSize(
        frozen=2 * (attention + 3 * 64 * 160),
        adapters=2 * 4 * (3 * 64 + 64 + 32 + 32 + 64 + 64),
        head=97 * 64,
        attention=2 * 64,
    )


def test_the_count_is_what_a_step_with_a_shared_prefix_computes(job, adapted):
    plan = ladder_plan(job.store, 6, 6, Layout.shared_prefix, length_aware=True)
    step = plan.step(0)
    (members,) = step.micro_batches
    rows = [job.store[row] for row in members]
    batch = collate(rows, ["x"] * 6, Layout.shared_prefix, LossOn.completion)
    base = adapted.get_base_model()
    with FlopCounterMode(display=False) as counter:
        batch_loss(base, batch).backward()
    size = model_size(adapted)
    tokens = batch.input_ids.numel()
    # The first layer's input needs no gradient, so its q, k and v and their adapters spare one.
    spared = 2 * tokens * (64 * 128 + 4 * 3 * 64)
    # Attention is computed over whole rectangles, of which the causal mask discards a part.
    own = job.store.lengths[list(members)] - 20
    pairs = 20 * 20 + len(own) * max(own) * (20 + max(own))
    visible = 20 * 21 / 2 + sum(length * 20 + length * (length + 1) / 2 for length in own)
    masked = 12 * size.attention * (pairs - visible)
    expected = useful_flops(size, job.store, [step]) - spared + masked
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)
