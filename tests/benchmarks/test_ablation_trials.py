"""The arms are what the page says, and a data set's trials differ in nothing else."""

from functools import cache

import numpy as np
import pytest
from trials import ALL, ARMS, BASELINE, DATA_SETS, FACTORS, VIGGO, Trial, all_trials

from exp.config.groups import open_library
from exp.config.plain import to_plain
from exp.config.preflight import preflight
from exp.config.schema import Layout
from exp.data.plan import BatchPlan

OWN_GROUP = {
    "augmentation": "augmentation",
    "lora": "lora",
    "loss": "training",
    "scheduler": "scheduler",
}
ORDERS = DATA_SETS[0]


@cache
def resolved(*arguments):
    return preflight("train", arguments, open_library()).trials[0]


def config(arm, data=ORDERS):
    return resolved(*Trial(data, arm, 0).arguments()).config


def test_the_baseline_arm_is_the_baseline_recipe_without_warmup():
    recipe = resolved("experiment=canonicalization_baseline").config
    ours = config(BASELINE)
    assert ours.lora == recipe.lora
    assert ours.training.loss is recipe.training.loss
    assert ours.augmentation == recipe.augmentation
    assert ours.scheduler.kind is recipe.scheduler.kind
    assert ours.scheduler.warmup_fraction == 0


@pytest.mark.thorough
def test_all_factors_together_are_the_optimised_recipe_with_augmentation():
    recipe = resolved("experiment=canonicalization_optimized", "augmentation=standard").config
    ours = config(ALL)
    assert ours.lora == recipe.lora
    assert ours.training.loss is recipe.training.loss
    assert ours.augmentation == recipe.augmentation
    assert ours.scheduler == recipe.scheduler


@pytest.mark.parametrize("arm", FACTORS, ids=lambda arm: arm.name)
@pytest.mark.thorough
def test_a_factor_changes_its_own_group_alone(arm):
    before, after = to_plain(config(BASELINE)), to_plain(config(arm))
    assert {key for key in before if before[key] != after[key]} == {OWN_GROUP[arm.name]}


def test_the_loss_is_all_that_its_arm_changes_of_training():
    before, after = (to_plain(config(arm).training) for arm in (BASELINE, ARMS[3]))
    assert ARMS[3].name == "loss"
    assert {key for key in before if before[key] != after[key]} == {"loss"}


@pytest.mark.parametrize("data", DATA_SETS, ids=lambda data: data.name)
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
@pytest.mark.thorough
def test_a_trial_sets_nothing_that_has_no_effect(arm, data):
    assert resolved(*Trial(data, arm, 0).arguments()).warnings == ()


@pytest.mark.parametrize("data", DATA_SETS, ids=lambda data: data.name)
@pytest.mark.thorough
def test_all_arms_take_the_same_number_of_steps(data):
    steps = {planned_steps(config(arm, data), data.rows) for arm in ARMS}
    assert steps == {config(BASELINE).training.steps}


def planned_steps(settings, rows):
    ones = np.ones(rows, dtype=np.int64)
    plan = BatchPlan(
        lengths=ones,
        num_labels=ones,
        shared_tokens=0,
        layout=Layout.packed,
        batch_size=settings.training.batch_size,
        micro_batch_tokens=settings.training.micro_batch_tokens,
        micro_batch_size=None,
        epochs=settings.training.epochs,
        max_steps=settings.training.steps,
        seed=settings.seed,
    )
    return plan.times(settings.augmentation.factor).num_steps


def test_no_two_trials_share_a_folder():
    folders = [trial.folder for trial in all_trials()]
    assert len(set(folders)) == len(folders) == len(ARMS) * len(DATA_SETS) * 3


def test_a_seed_is_done_with_everything_before_the_next_begins():
    seeds = [trial.seed for trial in all_trials()]
    assert seeds == sorted(seeds)


def test_the_folder_of_viggo_takes_the_place_of_its_name():
    words = Trial(DATA_SETS[3], BASELINE, 0).arguments("rows/viggo")
    assert "task.train=rows/viggo/train.jsonl" in words
    assert not any(VIGGO in word for word in words)
