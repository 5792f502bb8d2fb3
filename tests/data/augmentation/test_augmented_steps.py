"""Steps with variants: the same for every worker and sitting, labels exact over all ranks."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from exp.config.schema import Layout, LossOn, OutputFormat
from exp.data.augmentation import chain
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.served import Variants
from exp.data.datamodule import StepDataModule, StepDataset
from exp.data.plan import BatchPlan, count_labels
from exp.data.render import Renderer
from exp.data.selection import Selection
from exp.data.tokens import tokenise
from exp.errors import DataError
from exp.model.tokenizer import byte_chat_format
from exp.records import Example

FACTOR = 2
ROWS = [
    Example(
        f"r{i}", f"Hola, necesito {i + 2} cajas de {name * (1 + i % 3)}. Gracias.", {"n": i + 2}
    )
    for i, name in enumerate(("clavos", "palas", "tubos", "sacos", "mesas", "sillas", "luces"))
]


@pytest.fixture
def parts(augmenter):
    """The plan, the store and the variants of seven rows."""

    def build(loss=LossOn.completion, micro_batch_tokens=600, renaming=0.0):
        renderer = Renderer(byte_chat_format(), "Write JSON.", OutputFormat.json, None)
        store = tokenise(ROWS, "rows", renderer)
        plan = BatchPlan(
            lengths=store.lengths,
            num_labels=count_labels(store.lengths, store.completion_lengths, loss),
            shared_tokens=len(store.head_ids),
            layout=Layout.padded,
            batch_size=5,
            micro_batch_tokens=micro_batch_tokens,
            micro_batch_size=None,
            epochs=2.0,
            max_steps=None,
            seed=0,
        ).times(FACTOR)
        of = augmenter(canon=Canon(folds_case=True, folds_accents=True), renaming=renaming)
        rows = np.arange(len(ROWS))
        variants = Variants(store, rows, ROWS, renderer, of, FACTOR, 10_000)
        return plan, store, Selection(rows, ()), variants

    return build


def dataset(parts, first_step=0, loss=LossOn.completion, **plan_changes):
    plan, store, selection, variants = parts
    return StepDataset(replace(plan, **plan_changes), store, selection, loss, first_step, variants)


def same(one, other):
    assert one.step == other.step
    for a, b in zip(one.batches, other.batches, strict=True):
        assert a.example_ids == b.example_ids
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.labels, b.labels)


def ids(batches):
    return [name for part in batches.batches for name in part.example_ids]


def test_every_row_and_every_variant_comes_once_per_epoch(parts):
    steps = dataset(parts())
    for epoch in range(2):
        seen = [n for i in range(6) if steps[i].step.epoch == epoch for n in ids(steps[i])]
        assert sorted(seen) == sorted(f"r{i}{tail}" for i in range(7) for tail in ("", "#1"))


def test_a_resumed_run_and_a_worker_process_see_the_same_steps(parts):
    whole = dataset(parts())
    resumed = dataset(parts(), first_step=2)
    worker = pickle.loads(pickle.dumps(whole))
    for index in range(4):
        same(whole[index + 2], resumed[index])
        same(whole[index + 2], worker[index + 2])


@pytest.mark.parametrize("loss", LossOn)
def test_the_labels_of_a_step_are_those_of_all_ranks_together(parts, loss):
    for number in range(6):
        ranks = [
            dataset(parts(loss), loss=loss, rank=rank, world_size=2)[number] for rank in range(2)
        ]
        labels = sum(len(part.labels) for rank in ranks for part in rank.batches)
        assert [rank.step.num_labels for rank in ranks] == [labels, labels]


def longer(passage, grounding, example, free, rng):
    """Stands for a renaming whose name takes more tokens."""
    return replace(example, output={**example.output, "name": "x" * (1 + example.output["n"])})


def test_labels_are_counted_as_they_are_where_variants_have_answers_of_their_own(
    parts, monkeypatch
):
    monkeypatch.setattr(chain, "rename", longer)
    planned = counted = 0
    for number in range(6):
        ranks = [dataset(parts(renaming=1.0), rank=rank, world_size=2)[number] for rank in range(2)]
        labels = sum(len(part.labels) for rank in ranks for part in rank.batches)
        assert [rank.step.num_labels for rank in ranks] == [labels, labels]
        counted += labels
        planned += dataset(parts())[number].step.num_labels
    assert counted > planned


@pytest.mark.parametrize("tokens", [200, 600])
def test_forwards_keep_to_their_budget_by_the_lengths_of_the_variants(parts, tokens):
    steps = dataset(parts(micro_batch_tokens=tokens))
    for number in range(6):
        for part in steps[number].batches:
            assert part.input_ids.numel() <= tokens or len(part.example_ids) == 1


def test_a_step_that_is_cut_anew_has_the_same_examples(parts):
    steps = dataset(parts())
    batches = steps[1]
    singles = tuple((m,) for part in batches.step.micro_batches for m in part)
    again = steps.collate_step(replace(batches.step, micro_batches=singles))
    assert ids(again) == ids(batches)
    assert again.tally is None


def test_what_became_of_the_variants_is_said_once_per_epoch(parts, caplog):
    plan, store, selection, variants = parts()
    module = StepDataModule(plan, store, selection, LossOn.completion, variants=variants)
    steps = dataset((plan, store, selection, variants))
    caplog.clear()  # where another test has left the level at INFO, what came before is in it
    with caplog.at_level("INFO", logger="exp"):
        for number in range(6):
            module.transfer_batch_to_device(steps[number], torch.device("cpu"), 0)
        assert [r.message.partition(";")[0] for r in caplog.records] == [
            "augmentation, epoch 1: 7 new variants"
        ]
        module.teardown("fit")
    assert "augmentation, epoch 2: 7 new variants" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_the_user_comes_out_of_a_worker_as_it_is(parts, monkeypatch, num_workers):
    plan, store, selection, variants = parts()
    told = DataError("The file was changed.", where="rows.jsonl", fix="leave it alone")

    def refuse(self, epoch, members):
        raise told

    monkeypatch.setattr(Variants, "serve", refuse)
    module = StepDataModule(
        plan, store, selection, LossOn.completion, num_workers=num_workers, variants=variants
    )
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    (first, *_) = module.train_dataloader()
    with pytest.raises(DataError) as caught:
        module.transfer_batch_to_device(first, torch.device("cpu"), 0)
    assert str(caught.value) == str(told)
