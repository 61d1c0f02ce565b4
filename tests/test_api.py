"""The calls: their arguments are checked together, before anything is written or trained."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import flops_fit
from flops_fit.errors import ArgumentError


def test_every_fault_is_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError) as caught:
        flops_fit.find_optimal(
            "GPT", "width", dataset=[], loss_fn=None, compute_budgets=[-1],
            metrics={"loss": len, "a b": len, "f1": 1}, workers=-1, name="", tracking_uri="",
        )  # fmt: skip
    text = str(caught.value)
    faulty = (
        "model_cls",
        "dataset",
        "loss_fn",
        "got 'loss'",
        "got 'a b'",
        "got 'f1'",
        "compute_budgets",
        "workers",
        "name:",
        "tracking_uri",
    )
    assert [name for name in faulty if name not in text] == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: expected a positive whole number"),
        ({"workers": True}, "workers: expected"),
        ({"executor": 3}, r"executor: expected something with submit\(\)"),
    ],
)
def test_bad_workers_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        flops_fit.find_optimal(print, "width", **options)


@pytest.fixture
def launched(monkeypatch):
    """As if started by torchrun, as rank 0 of 2."""
    for key, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(key, value)
    return monkeypatch


@pytest.mark.parametrize(
    "options", [{"workers": 2}, {"workers": "auto"}, {"executor": ThreadPoolExecutor(1)}]
)
def test_a_launch_has_no_workers_of_its_own(launched, options):
    with pytest.raises(
        ArgumentError, match=f"{next(iter(options))}: this script was launched as 2"
    ):
        flops_fit.find_optimal(print, "width", **options)


def test_a_launch_that_cannot_meet_is_refused_rather_than_left_to_hang(launched):
    launched.delenv("MASTER_ADDR")
    launched.setenv("FLOPS_FIT_TIMEOUT", "0")
    with pytest.raises(
        ArgumentError, match=r"(?s)MASTER_ADDR is not set.*FLOPS_FIT_TIMEOUT: expect"
    ):
        flops_fit.find_optimal(print, "width")


def test_analyze_of_nothing_says_so(tmp_path):
    with pytest.raises(flops_fit.FlopsFitError, match="no store at"):
        flops_fit.analyze("x", f"sqlite:///{tmp_path}/mlflow.db")
