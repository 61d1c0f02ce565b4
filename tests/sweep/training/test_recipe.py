import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flops_fit.errors import ArgumentError
from flops_fit.records import Trial
from flops_fit.sweep.training.optimizer import build_optimizer, multiplier
from flops_fit.sweep.training.recipe import SCHEDULES, Recipe

TRIAL = Trial("0", 1e12, 32, 0, 1000, 10_000, 6e7, 100, 8, math.nan, 0)
STEPS = st.integers(10, 3000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", math.nan),
        ("learning_rate", "fast"),
        ("learning_rate", True),
        ("lr_multipliers", 2.0),
        ("lr_multipliers", (0.5, 2.0)),
        ("lr_multipliers", (1.0, 1.0)),
        ("lr_multipliers", (0.0, 1.0)),
        ("lr_multipliers", "12"),
        ("pilot", 1),
        ("batch_size", "large"),
        ("batch_tokens", 0),
        ("batch_tokens", "1M"),
        ("batch_size", 0),
        ("batch_size", 8.0),
        ("batch_size", True),
        ("optimizer", "adamax"),
        ("schedule", "cosign"),
        ("precision", "fp8"),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("weight_decay", -1),
        ("betas", (0.9, 1.0)),
        ("betas", 0.9),
        ("max_epochs", 0),
        ("clip", 0.0),
        ("keep_models", "worst"),
        ("keep_models", True),
        ("eval_examples", 0),
        ("log_points", 2.5),
    ],
)
def test_faults_are_named(field, value):
    with pytest.raises(ArgumentError, match=f"{field}: expected"):
        Recipe(**{field: value})


def test_all_faults_in_one_error():
    with pytest.raises(ArgumentError, match="invalid recipe") as caught:
        Recipe(learning_rate=-1, schedule="none", clip=-1)
    assert len(caught.value.problems) == 3


def test_a_batch_is_given_once():
    with pytest.raises(ArgumentError, match="batch_tokens: batch_size is set too"):
        Recipe(batch_size=8, batch_tokens=1000)


def test_learning_rate_by_number_rule_and_function():
    assert Recipe(learning_rate=1e-3).peak_learning_rate(TRIAL) == 1e-3
    assert Recipe().peak_learning_rate(TRIAL) == pytest.approx(0.3118 * 1e12**-0.125)
    by_size = Recipe(learning_rate=lambda trial: 1 / trial.size)
    assert by_size.peak_learning_rate(TRIAL) == 1 / 32
    with pytest.raises(ArgumentError, match=r"learning_rate: expected its function .* got -1"):
        Recipe(learning_rate=lambda trial: -1).peak_learning_rate(TRIAL)


def test_batch_by_number_and_rule():
    def batch(recipe, C, unit="tokens", per_example=128):
        return recipe.examples_per_step(C, 1e6, 1e8, unit, per_example)

    assert batch(Recipe(batch_size=12), 1e12) == 12
    assert batch(Recipe(), 1e12, "examples", 1) == 64
    tokens = 0.2920 * 1e15**0.3271
    assert batch(Recipe(), 1e15) == batch(Recipe(batch_size="deepseek"), 1e15)
    assert batch(Recipe(), 1e15) == round(tokens / 128)
    assert batch(Recipe(batch_size="steplaw"), 1e15) == round(0.58 * 1e8**0.571 / 128)
    assert batch(Recipe(), 1e3) == 1


@pytest.mark.parametrize(
    ("recipe", "rate", "batch"),
    [
        (Recipe(), True, True),
        (Recipe(pilot=False), False, False),
        (Recipe(learning_rate=0.1), False, True),
        (Recipe(batch_size=4), True, False),
        (Recipe(batch_tokens=4), True, False),
        (Recipe(learning_rate="steplaw", batch_size="porian"), False, False),
    ],
)
def test_what_is_found_by_experiment(recipe, rate, batch):
    assert (recipe.finds_rate, recipe.finds_batch) == (rate, batch)


def test_sweeps_by_the_former_default_keep_their_setting():
    """Before there were pilots, "auto" was DeepSeek's rule; a setting is a stored format."""
    by_rule = Recipe(learning_rate="deepseek", batch_size="deepseek").setting()
    assert by_rule == Recipe(pilot=False).setting()
    assert (by_rule["learning_rate"], by_rule["batch_size"]) == ("auto", "auto")
    assert Recipe().setting() != by_rule
    assert "pilot" not in by_rule


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(steps=STEPS)
def test_schedules_rise_over_the_warm_up_and_never_leave_the_range(schedule, steps):
    recipe = Recipe(schedule=schedule, warmup=0.1)
    rates = [multiplier(recipe, step, steps) for step in range(steps)]
    rise = round(0.1 * steps)
    assert rates[:rise] == [(step + 1) / rise for step in range(rise)]
    assert max(rates) == 1
    assert min(rates) > 0
    assert all(a >= b for a, b in zip(rates[rise:], rates[rise + 1 :], strict=False))


@given(steps=STEPS)
def test_each_schedule_ends_at_its_own_horizon(steps):
    def last(schedule):
        return multiplier(Recipe(schedule=schedule), steps - 1, steps)

    decay = steps - round(0.1 * steps)
    assert last("linear") == pytest.approx(1 / decay)
    assert 0.1 <= last("cosine") <= 0.1 + 5 / decay**2
    assert last("wsd") <= 5 / decay
    assert last("constant") == 1


def test_linear_is_half_way_down_half_way():
    recipe = Recipe(warmup=0.2)
    assert multiplier(recipe, 599, 1000) == pytest.approx(0.5, abs=2e-3)


def test_schedule_of_ones_own_stays_in_its_range_after_the_last_step():
    recipe = Recipe(schedule=lambda share: math.sqrt(1 - share))
    assert multiplier(recipe, 49, 100) == math.sqrt(0.5)
    assert multiplier(recipe, 99, 100) == 0
    assert multiplier(recipe, 100, 100) == 0  # PyTorch asks once more


def test_adamw_decays_matrices_only():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[1].bias.requires_grad_(False)
    optimizer = build_optimizer(Recipe(weight_decay=0.3, betas=(0.8, 0.9)), model, 0.01)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {model[0].weight: 0.3, model[0].bias: 0.0, model[1].weight: 0.0}
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_optimizer_of_ones_own():
    model = nn.Linear(4, 4)
    optimizer = build_optimizer(Recipe(optimizer=lambda p, lr: torch.optim.SGD(p, lr)), model, 0.2)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.2


def test_setting_and_identity_leave_out_what_does_not_change_a_result():
    same = replace(Recipe(), log_points=7, max_epochs=9.0)
    assert same.setting() == Recipe().setting()
    per_trial = replace(Recipe(), learning_rate=0.1, batch_size=3)
    assert per_trial.identity() == Recipe().identity()
    assert per_trial.setting() != Recipe().setting()
    for change in ({"schedule": "wsd"}, {"clip": None}, {"eval_examples": 9}, {"warmup": 0.0}):
        assert replace(Recipe(), **change).identity() != Recipe().identity()


def test_what_is_stored_of_a_recipe_is_as_before_models_were_kept():
    assert repr(Recipe()).endswith("compile=False, checkpoint_every=600.0)")
    kept = Recipe(keep_models="best")
    assert repr(kept).endswith("checkpoint_every=600.0, keep_models='best')")
    assert eval(repr(kept)) == kept
    assert (kept.setting(), kept.identity()) == (Recipe().setting(), Recipe().identity())
