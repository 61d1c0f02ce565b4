import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned import BUDGETS, UNLIMITED
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flops_fit import Recipe, plan_sweep
from flops_fit.errors import ArgumentError
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.laws.model.recipe_law import FEW_STEPS
from flops_fit.records import TRIAL_COLUMNS
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task


class HeadsDoNotSay(nn.Module):
    """Builds at every width, but runs only where four heads divide it."""

    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 3)

    def forward(self, x):
        h = self.up(x)
        return self.down(h.view(len(x), 4, h.shape[1] // 4).flatten(1))

    def num_params(self):
        return sum(p.numel() for p in self.parameters())


@pytest.mark.slow
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(budget=st.floats(1e9, 1e12), batch=st.integers(1, 64))
def test_each_trial_spends_its_budget_to_within_one_step(planned, budget, batch):
    recipe = replace(UNLIMITED, batch_size=batch)
    plan = planned(compute_budgets=[budget], sizes=[4, 9, 33], recipe=recipe)
    assert [trial.size for trial in plan.trials] == [4, 9, 33]
    for trial in plan.trials:
        assert trial.num_tokens == trial.steps * batch
        assert abs(trial.flops - budget) <= trial.flops / trial.steps
        assert trial.flops == trial.num_tokens * (2 * (2 * 4) + 3 * (2 * 3)) * trial.size


def test_rows_are_even_in_log_n_around_the_expected_optimum(planned):
    for budget in BUDGETS:
        row = [t for t in planned().trials if t.compute_budget == budget]
        assert [t.size_index for t in row] == list(range(7))
        n = np.log([t.num_params for t in row])
        gaps = np.diff(n)
        assert gaps.min() > 0
        # A width is whole: N comes in steps of 8.
        assert np.ptp(gaps) <= 2 * 8 / row[0].num_params
        # Of the perceptron f is 34 width and N is 8 width + 3.
        expected = math.sqrt(budget / (20 * 34 / 8))
        assert n[0] == pytest.approx(math.log(expected) - 0.75 * math.log(10), abs=0.05)


def test_optimum_is_expected_at_the_measured_cost(conv_net, cross_entropy):
    """A convolution spends far more than 6 FLOPs on each parameter and example."""
    x = torch.zeros(64, 3, 8, 8)
    data = TensorDataset(x, torch.arange(64) % 10)
    plan = plan_sweep(conv_net, "channels", None, data, cross_entropy, [1e10], recipe=UNLIMITED)
    ratios = [t.num_tokens / t.num_params for t in plan.trials]
    assert ratios[0] > 20 > ratios[-1]
    assert plan.trials[-1].num_params < math.sqrt(1e10 / 120)


@pytest.mark.slow
def test_units_are_tokens_or_examples(planned):
    text = torch.zeros(400, 16).long()
    options = {
        "model_cls": GPT,
        "model_size_param": "d_model",
        "model_kwargs": {"context": 16},
        "loss_fn": next_token_loss,
        "compute_budgets": [1e10],
    }
    tokens = planned(**options, dataset=TensorDataset(text, text))
    assert (tokens.data_unit, tokens.tokens_per_example) == ("tokens", 16)
    assert tokens.available == 380 * 16
    assert all(t.num_tokens == t.steps * t.batch_size * 16 for t in tokens.trials)
    examples = planned()
    assert (examples.data_unit, examples.tokens_per_example) == ("examples", 1)
    assert {t.batch_size for t in examples.trials} == {64}


def test_pixels_and_classes(conv_net, images, cross_entropy):
    plan = plan_sweep(
        conv_net, "channels", None, images, cross_entropy, [3e9, 1e10],
        recipe=replace(UNLIMITED, batch_size=8),
    )  # fmt: skip
    assert plan.flops_convention == "measured"
    assert plan.compute_budgets == [3e9, 1e10]


def test_loader_decides_the_batch_unless_the_recipe_does(planned, classes):
    loader = DataLoader(classes, batch_size=5)
    assert {t.batch_size for t in planned(dataset=loader).trials} == {5}
    explicit = planned(dataset=loader, recipe=replace(UNLIMITED, batch_size=9))
    assert {t.batch_size for t in explicit.trials} == {9}


def test_streams_have_no_epochs(planned, stream):
    plan = planned(dataset=stream(2000), recipe=None)
    assert plan.available is None
    assert plan.to_frame()["epochs"].isna().all()
    short = planned(dataset=stream(100))
    assert short.available == 95
    assert (short.to_frame()["epochs"] > 1).all()


@pytest.mark.parametrize("sizes", [[4, 8, 16], (16, 8, 4, 8), np.array([4, 8, 16])])
def test_explicit_sizes(planned, sizes):
    plan = planned(sizes=sizes)
    assert [t.size for t in plan.trials] == [4, 8, 16] * 2
    assert {type(t.size) for t in plan.trials} == {int}


def test_sizes_that_are_words_or_fractions(planned, mlp):
    def by_name(width):
        return mlp({"small": 4, "base": 8, "large": 16}[width])

    words = planned(model_cls=by_name, sizes=["large", "small", "base"])
    assert [t.size for t in words.trials[:3]] == ["small", "base", "large"]
    fractions = planned(model_cls=lambda width: mlp(int(16 * width)), sizes=[0.25, 1.0, 0.5])
    assert [t.size for t in fractions.trials[:3]] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("size", [{"width": 4}, [4, 2], (4, [2])])
def test_sizes_that_are_no_names_are_refused(planned, size):
    with pytest.raises(ArgumentError, match=r"^sizes: expected numbers or names, got .*a name"):
        planned(sizes=[size, size, size])


@pytest.mark.slow
def test_model_sized_by_depth():
    def deep(depth):
        model = nn.Sequential(nn.Linear(4, 8), *(nn.Linear(8, 8) for _ in range(depth)))
        model.num_params = lambda: sum(p.numel() for p in model.parameters())
        return model

    data = TensorDataset(torch.randn(100, 4), torch.arange(100) % 8)
    plan = plan_sweep(deep, "depth", None, data, F.cross_entropy, [3e8], recipe=UNLIMITED)
    assert [t.size for t in plan.trials] == sorted({t.size for t in plan.trials})
    assert len(plan.trials) == 7


def test_sizes_refused_when_they_run_are_passed_over_in_one_line(planned):
    plan = planned(model_cls=HeadsDoNotSay)
    assert {t.size % 4 for t in plan.trials} == {0}
    (first, *_) = plan.skipped
    assert first.size == 1
    assert "shape" in first.reason
    last = repr(plan).splitlines()[-1]
    others = len(plan.skipped) - 1
    assert last.startswith(f"no model at width=1 and {others} more; the nearest other")


def test_explicit_sizes_refused_are_named(planned):
    plan = planned(model_cls=HeadsDoNotSay, sizes=[4, 6, 8, 12])
    assert [t.size for t in plan.trials[:3]] == [4, 8, 12]
    assert [s.size for s in plan.skipped] == [6]


SCRIPT = """
import torch
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.task.task import Task
text = torch.arange(400 * 16).view(400, 16) % 256
data = torch.utils.data.TensorDataset(text, text)
options = {"context": 16, "head_dim": 8, "n_layer": 1}
task = Task(GPT, "d_model", options, data, next_token_loss)
plan = make_plan(task, PlanRequest([1e9], [8, 16, 24], Recipe(max_epochs=1e9, pilot=False))).plan
ids = [plan.setting, *[trial.trial_id for trial in plan.trials]]
print(*ids)
"""


@pytest.mark.slow
def test_trial_ids_are_the_same_in_another_process():
    here: dict[str, list[str]] = {}
    exec(SCRIPT, here)
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert len(set(here["ids"])) == 4
    assert done.stdout.split() == here["ids"]


def ids(plan):
    return {trial.trial_id for trial in plan.trials}


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"model_kwargs": {"dropout": 0.5}},
        {"loss_fn": nn.CrossEntropyLoss()},
        {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"recipe": replace(UNLIMITED, learning_rate=0.01)},
        {"recipe": replace(UNLIMITED, batch_size=32)},
        {"recipe": replace(UNLIMITED, schedule="cosine")},
        {"recipe": replace(UNLIMITED, schedule=lambda share: 1 - share)},
        {"recipe": replace(UNLIMITED, weight_decay=0.0)},
        {"recipe": replace(UNLIMITED, clip=None)},
        {"recipe": replace(UNLIMITED, precision="bf16")},
        {"recipe": replace(UNLIMITED, eval_examples=10)},
        {"flops": "6ND"},
        {"dataset": TensorDataset(torch.zeros(2000, 4), torch.zeros(2000).long())},
        {"eval_dataset": TensorDataset(torch.zeros(99, 4), torch.zeros(99).long())},
    ],
)
def test_arguments_that_determine_the_result_change_every_trial_id(planned, changes):
    fixed = {"sizes": [4, 8, 16]}
    before, after = planned(**fixed), planned(**fixed, **changes)
    assert not ids(before) & ids(after)
    assert before.setting != after.setting or "seed" in changes


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": replace(UNLIMITED, log_points=3)},
        {"recipe": replace(UNLIMITED, max_epochs=1e11)},
        {"sizes": [4, 8, 16, 32]},
        {"compute_budgets": [*BUDGETS, 3e9]},
        {"compute_budgets": [1e10, 1e9, 1e9]},
        {"compute_budgets": np.array([*BUDGETS, 1e11])},
        {"compute_budgets": pd.Series(BUDGETS)},
    ],
)
def test_other_arguments_change_no_trial_id(planned, changes):
    before = planned(sizes=[4, 8, 16])
    after = planned(**{"sizes": [4, 8, 16], **changes})
    assert ids(before) <= ids(after)
    assert before.setting == after.setting


def test_adding_a_budget_changes_no_other_trial(planned):
    before, after = planned(), planned(compute_budgets=[*BUDGETS, 1e11])
    assert before.trials == tuple(t for t in after.trials if t.compute_budget in BUDGETS)


def test_planning_leaves_the_callers_generator_alone(planned):
    before = torch.get_rng_state()
    planned()
    assert torch.equal(torch.get_rng_state(), before)


def test_plan_is_data_and_reads_well(planned):
    plan = planned()
    assert plan.total_flops == pytest.approx(7 * sum(BUDGETS), rel=0.01)
    frame = plan.to_frame()
    assert set(TRIAL_COLUMNS) <= set(frame.columns)
    assert len(frame) == len(plan.trials)
    assert (frame["epochs"] == frame["num_tokens"] / 1900).all()
    assert re.match(r"SweepPlan: 14 trials of \S*MLP, 7\.7e\+10 FLOPs \(measured\)\n", repr(plan))


def test_rows_are_cut_where_too_few_steps_or_too_little_data_would_be_left(planned):
    short = planned(compute_budgets=[1e8])
    assert min(t.steps for t in short.trials) >= 0.9 * FEW_STEPS
    scarce = planned(recipe=Recipe(max_epochs=200, pilot=False), compute_budgets=[1e9])
    assert max(t.num_tokens for t in scarce.trials) <= 200 * 1900
    assert scarce.trials[0].size > planned(compute_budgets=[1e9]).trials[0].size


def test_all_faults_of_model_data_loss_and_budgets_in_one_error(classes):
    class NoCount(nn.Linear):
        pass

    with pytest.raises(ArgumentError, match="flops-fit cannot start") as seen:
        plan_sweep(
            NoCount, "out_features", {"in_features": 4}, [], "loss", [-1.0],
            sizes=[1], recipe=3, flops="7ND", seed=-1, eval_dataset=3,
        )  # fmt: skip
    named = [problem.split(":")[0] for problem in seen.value.problems]
    assert sorted(named) == sorted(
        ["model_cls", "loss_fn", "dataset", "eval_dataset", "compute_budgets", "sizes", "recipe",
         "flops", "seed"]
    )  # fmt: skip


class Uncounted(nn.Module):
    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.down(self.up(x))


def wide(count):
    return TensorDataset(torch.randn(count, 9), torch.arange(count) % 3)


RAISED = "eval_dataset: one batch raised RuntimeError"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"model_cls": Uncounted, "loss_fn": lambda out, y: out, "eval_dataset": wide(40)},
            ["model_cls: Uncounted has no num_params", "loss_fn: expected a scalar, got", RAISED],
        ),
        ({"loss_fn": lambda out, y: None, "eval_dataset": wide(40)}, ["loss_fn: expected", RAISED]),
        (
            {"loss_fn": lambda out, y: out.wrong, "eval_dataset": wide(40)},
            ["loss_fn: one batch at size 1 raised AttributeError", RAISED],
        ),
        ({"loss_fn": None, "eval_dataset": wide(40)}, ["loss_fn: expected a function", RAISED]),
        (
            {"model_cls": Uncounted, "model_kwargs": {"width": 3, "depth": 1}, "eval_dataset": []},
            ["model_kwargs: holds 'width'", "model_kwargs: .*Uncounted takes no 'depth'",
             "eval_dataset: it is empty"],
        ),
        (
            {"model_cls": Uncounted, "model_kwargs": {"width": 3}, "loss_fn": lambda out, y: 1.0},
            ["model_kwargs: holds 'width'", "model_cls: Uncounted has no num_params",
             "loss_fn: expected a scalar tensor, got float"],
        ),
        (
            {"recipe": Recipe(optimizer=lambda p, lr: 1), "loss_fn": lambda out, y: 1.0},
            ["optimizer: ", "loss_fn: expected a scalar tensor, got float"],
        ),
    ],
)  # fmt: skip
def test_no_fault_hides_another(planned, changes, named):
    with pytest.raises(ArgumentError) as seen:
        planned(**changes)
    assert len(seen.value.problems) == len(named)
    for problem, pattern in zip(seen.value.problems, named, strict=True):
        assert re.match(pattern, problem)


def test_nothing_passed_at_all(mlp):
    with pytest.raises(ArgumentError) as seen:
        plan_sweep(mlp, "width")
    named = [problem.split(":")[0] for problem in seen.value.problems]
    assert named == ["dataset", "loss_fn", "compute_budgets"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute_budgets": 1e10}, "compute_budgets: expected a list of FLOPs, as .* got 1"),
        ({"compute_budgets": "1e6"}, "compute_budgets: expected FLOPs as .* got '1e6'"),
        ({"compute_budgets": ["lots"]}, "compute_budgets: expected a list of FLOPs"),
        ({"compute_budgets": []}, "compute_budgets: missing"),
        ({"compute_budgets": [0, math.nan, 1e9]}, r"expected positive finite FLOPs, got \[0.0, n"),
        ({"sizes": "small"}, "sizes: expected at least 3 different values, got 'small'"),
        ({"sizes": 8}, "sizes: expected at least 3 different values, got 8"),
        ({"sizes": [8, 8, 8]}, "sizes: expected at least 3 different values"),
        ({"sizes": [[8], [9], [10]]}, "sizes: expected numbers or names"),
        ({"recipe": {}}, "recipe: expected a Recipe, got dict"),
        ({"flops": 6}, "flops: expected 'measured', '6ND' or a function, got 6"),
        ({"seed": 0.5}, "seed: expected a whole number from 0 up, got 0.5"),
        ({"loss_fn": lambda out, y: out.sum(1)}, r"loss_fn: expected a scalar, got shape \(2,\)"),
        ({"loss_fn": lambda out, y: out.sum().detach()}, "loss_fn: its result carries no gradient"),
        ({"loss_fn": lambda out: out.sum()}, r"loss_fn: it is called as .* takes \(out\)"),
        ({"loss_fn": nn.MSELoss}, r"loss_fn: got the class MSELoss; pass .* MSELoss\(\)"),
        (
            {"compute_budgets": [True]},
            r"compute_budgets: expected a list of FLOPs, .* got \[True\]",
        ),
        ({"flops": lambda m: 1 / 0}, "flops: it raised ZeroDivisionError: division by zero"),
        ({"model_cls": lambda width, /: None}, "takes 'width' by position only; .* drop the '/'"),
        (
            {"recipe": Recipe(optimizer=lambda p, lr: 1, pilot=False)},
            "optimizer: .* an Optimizer, got int",
        ),
        (
            {"recipe": Recipe(optimizer=lambda p: 1, pilot=False)},
            "optimizer: its function raised TypeError",
        ),
        (
            {"recipe": Recipe(schedule=lambda s: None, pilot=False)},
            "schedule: .*, got None at 0.01 of the st",
        ),
        (
            {"recipe": Recipe(schedule=lambda s: 1 / (1 - s), pilot=False)},
            "schedule: .* ZeroDivisionError: float division by zero, at 1",
        ),
        (
            {"recipe": Recipe(optimizer=lambda p, lr: torch.optim.LBFGS(p, lr), pilot=False)},
            "recipe: one step at size 1 raised TypeError: .*closure",
        ),
        ({"model_kwargs": []}, "model_kwargs: expected a dict, got list"),
        ({"sizes": [4, 8, "a"]}, r"works at 2 of the 3 given, 3 are needed \('a': TypeError"),
        ({"model_cls": HeadsDoNotSay, "sizes": [4, 8, 6]}, r"works at 2 of the 3 given.*\(6: Runt"),
        ({"model_cls": lambda width: nn.Linear(4, 3)}, r"model_cls: Linear has no num_params"),
        ({"model_cls": lambda width: 3}, "model_cls: expected it to return an nn.Module, got int"),
    ],
)
def test_one_fault_one_line(planned, changes, message):
    with pytest.raises(ArgumentError, match=message):
        planned(**changes)


def test_a_broken_loss_is_reported_without_warnings_about_flops(planned):
    with pytest.raises(ArgumentError, match="loss_fn: expected a scalar"):
        planned(loss_fn=lambda out, y: out)


def test_size_that_does_not_size_the_model(mlp, classes, cross_entropy):
    def fixed(depth):
        return mlp(8)

    with pytest.raises(ArgumentError, match="does not grow with the size parameter: 67 at 1"):
        plan_sweep(fixed, "depth", None, classes, cross_entropy, BUDGETS)


def rates(plan):
    return [(t.compute_budget, t.size, t.lr_multiplier) for t in plan.trials]


def test_learning_rates_are_a_third_axis_that_keeps_what_was_trained(planned):
    before = planned()
    after = planned(recipe=replace(UNLIMITED, lr_multipliers=(2, 0.5, 1)))
    assert rates(after) == [
        (t.compute_budget, t.size, m) for t in before.trials for m in (0.5, 1, 2)
    ]
    assert {t for t in after.trials if t.lr_multiplier == 1} == set(before.trials)
    assert len(ids(after)) == 3 * len(ids(before))
    assert after.setting == before.setting
    for trial in after.trials:
        assert trial.learning_rate == pytest.approx(
            0.3118 * trial.compute_budget**-0.125 * trial.lr_multiplier
        )


@pytest.mark.slow
def test_a_batch_in_tokens_is_rounded_to_examples(planned):
    text = torch.zeros(4000, 16).long()
    plan = planned(
        model_cls=GPT, model_size_param="d_model", model_kwargs={"context": 16},
        loss_fn=next_token_loss, dataset=DataLoader(TensorDataset(text, text), batch_size=3),
        recipe=replace(UNLIMITED, batch_tokens=1000), compute_budgets=[1e11],
    )  # fmt: skip
    assert {t.batch_size for t in plan.trials} == {62}


def test_finder_builds_sizes_beyond_the_plan(mlp, classes, cross_entropy):
    planned = make_plan(
        Task(mlp, "width", {}, classes, cross_entropy), PlanRequest(BUDGETS, recipe=UNLIMITED)
    )
    assert planned.finder.nearest(8 * 1000 + 3) == 1000


class Normed(nn.Module):
    """A perceptron with a batch norm over its hidden layer."""

    def __init__(self, width, norm=nn.BatchNorm1d):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), norm(width), nn.Linear(width, 3))

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(batch_size=1, pilot=False),
        Recipe(batch_size=2, accumulate=2, pilot=False),
        Recipe(batch_size=5, accumulate=3, pilot=False),
    ],
)
def test_a_norm_over_one_example_is_found_before_training(classes, cross_entropy, recipe):
    recipe = replace(recipe, max_epochs=1e12)
    with pytest.raises(ArgumentError, match=r"batch of 1 example .*raised .*more than 1 value"):
        make_plan(
            Task(Normed, "width", {}, classes, cross_entropy),
            PlanRequest([1e8], [8, 16, 32], recipe),
        )
    plain = {"norm": nn.LayerNorm}
    make_plan(
        Task(Normed, "width", plain, classes, cross_entropy),
        PlanRequest([1e8], [8, 16, 32], recipe),
    )


def test_a_model_that_prints_when_it_is_built_is_heard_once(planned, mlp, capsys):
    def chatty(width):
        print("a banner")
        return mlp(width)

    planned(model_cls=chatty)
    assert capsys.readouterr().out == "a banner\n"
