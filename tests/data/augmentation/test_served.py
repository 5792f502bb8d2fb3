"""Variants as token ids: how many, which, and what stands in where there is none."""

import json
from dataclasses import replace

import numpy as np
import pytest

from exp.config.schema import Layout, OutputFormat, Pacing
from exp.data.augmentation.canon import Canon
from exp.data.augmentation.chain import STRATEGIES
from exp.data.augmentation.served import Tally, Variants, longest_variant
from exp.data.augmentation.words import fold
from exp.data.curriculum import Curriculum
from exp.data.draws import Draws
from exp.data.plan import BatchPlan
from exp.data.render import Renderer
from exp.data.tokens import tokenise
from exp.model.tokenizer import byte_chat_format
from exp.records import Example

FOLDS = Canon(folds_case=True, folds_accents=True)
ROWS = [
    Example(
        f"row-{i}",
        f"Hola, necesito comprar {20 + i} cajas de {name}, precio {5 + i},50 pesos. Gracias.",
        {"producto": name, "cantidad": 20 + i, "precio": 5.5 + i},
    )
    for i, name in enumerate(("clavos", "tuercas", "palas", "sofás", "martillos", "pinzas"))
]


@pytest.fixture
def variants(augmenter):
    def build(rows=ROWS, factor=3, max_tokens=10_000, **changes):
        renderer = Renderer(byte_chat_format(), "Write JSON.", OutputFormat.json, None)
        store = tokenise(rows, repr(rows), renderer)
        of = augmenter(canon=FOLDS, **changes)
        return Variants(store, np.arange(len(rows)), rows, renderer, of, factor, max_tokens)

    return build


def text_of(of, served):
    return of.renderer.decode(served.rendered.prompt_ids)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_factor_k_gives_k_times_the_examples_with_ids_of_their_own(variants, factor):
    of = variants(factor=factor)
    served = of.serve(0, range(len(ROWS) * factor))
    assert len(served) == len(ROWS) * factor
    assert len({example.id for example in served.values()}) == len(served)
    assert len({example.rendered for example in served.values()}) == len(served)
    assert Tally.of(list(served.values())).num_variants == len(ROWS) * (factor - 1)


def test_variant_zero_is_the_row_and_all_have_its_completion(variants):
    of = variants()
    served = of.serve(0, range(len(ROWS) * 3))
    for place, row in enumerate(ROWS):
        first, *others = (served[3 * place + number] for number in range(3))
        assert (first.id, first.rendered) == (row.id, of.store[place])
        assert [example.id for example in others] == [f"{row.id}#1", f"{row.id}#2"]
        for example in others:
            assert example.rendered.completion_ids == first.rendered.completion_ids
            assert example.rendered.prompt_ids[: len(of.store.head_ids)] == of.store.head_ids


def test_a_renamed_variant_has_the_completion_of_its_own_answer(variants):
    of = variants(renaming=1.0, free_fields=frozenset({("producto",)}))
    names = {row.output["producto"] for row in ROWS}
    for member, example in of.serve(0, range(18)).items():
        text = text_of(of, example)
        output = json.loads(of.renderer.decode(example.rendered.completion_ids))
        row = ROWS[member // 3].output
        assert {**output, "producto": ""} == {**row, "producto": ""}
        assert (output["producto"] in names) == (member % 3 == 0)
        assert fold(output["producto"]) in fold(text)


def test_an_example_depends_on_its_epoch_and_number_alone(variants):
    whole = variants().serve(4, range(18))
    single = {m: variants().serve(4, [m])[m] for m in (17, 4, 9, 0)}
    assert single == {m: whole[m] for m in single}
    assert variants().serve(4, [17, 4, 4, 17]) == {m: whole[m] for m in (17, 4)}


def test_every_epoch_has_other_variants(variants):
    of = variants()
    epochs = [of.serve(epoch, range(18)) for epoch in range(3)]
    for member in range(18):
        distinct = {epoch[member].rendered for epoch in epochs}
        assert len(distinct) == 1 if member % 3 == 0 else len(distinct) > 1


def test_the_row_stands_in_for_a_variant_that_is_too_long(variants):
    free = variants()
    longest = int(free.store.lengths.max())
    tight = variants(max_tokens=longest)
    served, allowed = tight.serve(0, range(18)), free.serve(0, range(18))
    too_long = {m for m, example in allowed.items() if example.num_tokens > longest}
    assert too_long
    for member in range(18):
        if member in too_long:
            assert served[member].rendered == tight.store[member // 3]
            assert served[member].id == allowed[member].id
        else:
            assert served[member] == allowed[member]
    assert Tally.of(list(served.values())).num_overlong == len(too_long)


def test_the_row_stands_in_where_the_text_admits_no_further_variant(variants):
    rows = [Example("a", "palas", {"p": "palas"})]
    of = variants(rows, factor=4, weights={"punctuation": 1.0})
    served = of.serve(0, range(4))
    tally = Tally.of(list(served.values()))
    assert (tally.num_variants, tally.num_exhausted) == (2, 1)
    assert served[0].rendered == of.store[0]
    assert len({example.id for example in served.values()}) == 4
    assert "2 new variants" in tally.words


def test_rejected_draws_are_counted(variants):
    def corrupt(passage, rng, strength):
        return passage.text.replace("20", "30") if rng.random() < 0.5 else passage.text + "!"

    of = variants(ROWS[:1], factor=2, weights={"corrupt": 1.0}, chain={"corrupt": corrupt})
    tallies = [Tally.of(list(of.serve(epoch, [1]).values())) for epoch in range(20)]
    total = sum(tallies, Tally())
    assert (total.num_variants, total.num_rejected > 0) == (20, True)


def test_only_the_selected_rows_have_variants(variants):
    of = replace(variants(), rows=np.array([1, 4]))
    ids = [example.id.partition("#")[0] for example in of.serve(0, range(6)).values()]
    assert sorted(ids) == ["row-1"] * 3 + ["row-4"] * 3


def test_a_variant_of_any_row_may_be_somewhat_longer_but_never_beyond_the_limit():
    assert longest_variant(100, 2048) == 125
    assert longest_variant(10, 2048) == 26
    assert longest_variant(100, 110) == 110


def test_a_plan_times_k_has_k_examples_in_the_place_of_each():
    plan = BatchPlan(
        lengths=np.array([5, 7, 9]),
        num_labels=np.array([1, 2, 3]),
        shared_tokens=0,
        layout=Layout.padded,
        batch_size=2,
        micro_batch_tokens=100,
        micro_batch_size=None,
        epochs=1.0,
        max_steps=None,
        seed=0,
        draws=Draws(np.array([0, 0, 1]), np.array([2, 3]), 0),
        curriculum=Curriculum(np.array([1.0, 2.0, 3.0]), Pacing.linear, 0.5, 0.5),
    )
    twice = plan.times(2)
    assert twice.lengths.tolist() == [5, 5, 7, 7, 9, 9]
    assert twice.num_labels.tolist() == [1, 1, 2, 2, 3, 3]
    assert twice.curriculum.difficulty.tolist() == [1, 1, 2, 2, 3, 3]
    assert twice.examples_per_epoch == 2 * plan.examples_per_epoch
    drawn = twice.members(0)
    assert sorted(drawn // 2)[:4] == [0, 0, 1, 1]
    assert np.isin(drawn, [4, 5]).sum() == 6


def test_all_strategies_come_up(variants):
    rows = [replace(row, input=row.input.replace("precio", "más precio, Perú,")) for row in ROWS]
    of = variants(rows).augmenter
    used = {
        name for e in range(20) for r in rows for v in of.variants(r, e, 1) for name in v.strategies
    }
    assert used == set(STRATEGIES)
