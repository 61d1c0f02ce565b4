"""Budgets chosen for a time stay with their sweep."""

from pathlib import Path

import pytest
import torch.nn.functional as F
from sweeps import SMALL_SIZES, UNLIMITED, Net, data

import flops_fit
from flops_fit import tracking
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.prepare import prepare
from flops_fit.sweep.forecast import chosen
from flops_fit.sweep.plan.grid import ChosenBudgets
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep_setup import join_job, open_job
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.parent_run import read_chosen

TASK = Task(Net, "width", dataset=data(), loss_fn=F.cross_entropy)


@pytest.fixture
def measured(monkeypatch):
    """Budgets that differ each time that the machine is timed; lists what was asked."""
    asked = []

    def choose(opened, spending, workers, price_per_hour):
        asked.append((spending.text, workers, price_per_hour))
        budgets = (6e7 * len(asked), 2e8 * len(asked))
        key = chosen.chosen_key(opened, spending)
        return ChosenBudgets(spending.text, key, budgets, (f"measured {len(asked)}",))

    monkeypatch.setattr("flops_fit.prepare.choose_budgets", choose)
    return asked


def address(store):
    return StoreAddress("timed", f"sqlite:///{store}/mlflow.db")


def planned(store, budgets="2h", begin=True, **options):
    recipe = options.pop("recipe", UNLIMITED)
    price = options.pop("price_per_hour", None)
    request = PlanRequest(budgets, SMALL_SIZES, recipe, price_per_hour=price)
    made = prepare(TASK, request, address(store), **options)
    if begin:
        open_job(TASK, made, address(store))
    return made


def test_the_same_call_has_the_same_budgets(store, measured):
    first, again = planned(store, "2h"), planned(store, "120 min", workers=2)
    assert measured == [("2 h", 1, None)]
    assert again.plan.compute_budgets == first.plan.compute_budgets == [6e7, 2e8]
    assert again.plan.trials == first.plan.trials
    assert first.plan.chosen.lines == ("measured 1",)
    assert again.plan.chosen.lines == (chosen.AGAIN, "measured 1")


@pytest.mark.parametrize(
    "other",
    [
        {"budgets": "3h"},
        {"budgets": "5 EUR", "price_per_hour": 2.0},
        {"recipe": flops_fit.Recipe(max_epochs=1e9, pilot=False, warmup=0.2)},
    ],
)
@pytest.mark.filterwarnings("ignore:sweep 'timed'. since its last call something changed")
def test_another_time_or_recipe_is_another_choice(store, measured, other):
    planned(store)
    assert planned(store, **other).plan.compute_budgets == [1.2e8, 4e8]
    assert planned(store).plan.compute_budgets == [6e7, 2e8]
    assert planned(store, **other).plan.compute_budgets == [1.2e8, 4e8]
    assert len(measured) == 2
    assert len(read_chosen(tracking.find_ledger("timed", address(store).tracking_uri))) < 2000


def test_what_was_never_begun_is_not_kept(store, measured):
    planned(store, begin=False)
    assert planned(store).plan.compute_budgets == [1.2e8, 4e8]


def test_a_plan_shows_the_budgets_of_its_sweep(store, measured):
    planned(store)
    plan = flops_fit.plan_sweep(
        Net, "width", {}, data(), F.cross_entropy, "2 hours", recipe=UNLIMITED, sizes=SMALL_SIZES,
        name="timed", tracking_uri=address(store).tracking_uri,
    )  # fmt: skip
    assert plan.compute_budgets == [6e7, 2e8]
    assert f"budgets chosen for 2 h\n{chosen.AGAIN}\nmeasured 1\n" in repr(plan)
    assert len(measured) == 1


@pytest.mark.slow
def test_a_worker_takes_what_the_driver_chose(store, measured, monkeypatch):
    monkeypatch.setattr(chosen, "DRIVER_S", 0.0)
    with pytest.raises(SweepError, match=r"no sweep|no budgets for 2 h yet"):
        planned(store, joins=True, begin=False)
    planned(store)
    joined = planned(store, joins=True, begin=False)
    assert joined.plan.compute_budgets == [6e7, 2e8]
    with pytest.raises(SweepError, match="holds no study"):  # the plan is the driver's
        join_job(TASK, joined, address(store))


@pytest.mark.parametrize(
    ("budgets", "options", "message"),
    [
        ("soon", {}, "compute_budgets: expected FLOPs as"),
        ("5 USD", {}, "price_per_hour: missing"),
        ("5 USD", {"price_per_hour": "2"}, "price_per_hour: expected a positive number, got '2'"),
        ("2h", {"executor": Path}, "compute_budgets: workers of an executor may run on other mac"),
    ],
)
def test_bad_arguments_are_refused(store, measured, budgets, options, message):
    with pytest.raises(ArgumentError, match=message):
        planned(store, budgets, **options)
    assert not measured


def test_a_launch_is_not_timed(store, measured, monkeypatch):
    monkeypatch.setattr("flops_fit.prepare.distributed.launched", lambda: (0, 2))
    with pytest.raises(ArgumentError, match="compute_budgets: a launch of several processes"):
        planned(store)
