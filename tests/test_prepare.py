"""How data are held out of a sweep that was begun before: as they were then."""

import pytest
from sweeps import SMALL_BUDGETS, SMALL_SIZES, UNLIMITED, Net, data, plan_of
from torch import nn

from flops_fit import prepare, tracking
from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.twins import Twins
from flops_fit.sweep_setup import open_job
from flops_fit.tracking.address import StoreAddress

OLD = {"setting": "0123", "data_fingerprint": "89ab"}


@pytest.fixture
def address(store):
    return StoreAddress("a", f"sqlite:///{store}/mlflow.db")


def task(**options):
    return Task(Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy, **options)


@pytest.mark.parametrize(
    ("before", "rule"),
    [
        (None, "blocks"),
        ({}, "blocks"),  # the store was made, and nothing planned
        (OLD, "random"),
        ({**OLD, "data_fingerprint": "89ab+cdef"}, "blocks"),  # held-out data were given
        ({**OLD, "held_out": "random"}, "random"),
        ({**OLD, "held_out": "blocks"}, "blocks"),
        ({**OLD, "held_out": "eval_dataset"}, "blocks"),
        ({**OLD, "held_out": "every 20th"}, "blocks"),
    ],
)
def test_a_sweep_goes_on_with_the_split_that_it_was_begun_with(address, before, rule):
    if before is not None:
        ledger = tracking.open_ledger("a", address.tracking_uri)
        if before:
            tracking.write_meta(ledger, before, "")
    assert prepare._rule_of_sweep(task(), address) == rule
    assert prepare._rule_of_sweep(task(eval_dataset=data()), address) == "blocks"


def test_a_store_that_cannot_be_asked_holds_out_blocks(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database")
    address = StoreAddress("a", f"sqlite:///{tmp_path}/mlflow.db")
    assert prepare._rule_of_sweep(task(), address) == "blocks"


def test_workers_hold_out_what_the_plan_did(address):
    request = PlanRequest(SMALL_BUDGETS, SMALL_SIZES, UNLIMITED)
    random = prepare.prepare(task(held_out_rule="random"), request, address)
    assert random.held_out_rule == "blocks"  # a new sweep
    tracking.write_meta(tracking.open_ledger("a", address.tracking_uri), OLD, "")
    planned = prepare.prepare(task(), request, address)
    with pytest.warns(FlopsFitWarning, match="something changed"):
        job = open_job(task(), planned, address)
    assert job.task.held_out_rule == "random"
    assert job.task.open().held_out.indices == planned.source.held_out.indices
    assert tracking.read_meta(job.ledger)["held_out"] == "random"
    assert prepare.prepare(task(), request, address).held_out_rule == "random"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (3, "paired_with: expected the name of a sweep, got 3"),
        ("a", "paired_with: 'a' is this sweep"),
        ("none", "paired_with: .*none"),
    ],
)
def test_a_sweep_that_cannot_be_paired_with(address, name, said):
    tracking.open_ledger("a", address.tracking_uri)
    request = PlanRequest(SMALL_BUDGETS, SMALL_SIZES, UNLIMITED, paired_with=name)
    with pytest.raises(ArgumentError, match=said):
        prepare.prepare(task(), request, address)


def test_a_paired_sweep_holds_out_what_the_other_did(address):
    other = Twins("b", "0123", "89ab", "random", "width", {})
    assert prepare._rule_of_sweep(task(), address, other) == "random"


@pytest.mark.parametrize(
    ("workers", "per_device", "expected"),
    [
        (1, None, None),
        ("auto", None, ("auto", None)),
        ("auto", 3, ("auto", 3)),
        (8, None, (8, None)),
    ],
)
def test_how_many_workers_share_a_device_is_decided_for_all_but_one(workers, per_device, expected):
    planned = plan_of()[1]
    packer = prepare.packer(planned, workers, per_device)
    assert (packer and (packer.workers, packer.per_device)) == expected
    assert packer is None or packer.trials == planned.plan.trials
