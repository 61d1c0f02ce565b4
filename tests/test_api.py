"""The calls: their arguments are checked together, before anything is written or trained."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

import flops_fit
from flops_fit.errors import ArgumentError


def test_every_fault_is_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError) as caught:
        flops_fit.find_optimal(
            "GPT", "width", dataset=[], loss_fn=None, compute_budgets=[-1],
            metrics={"loss": len, "a b": len, "f1": 1}, workers=-1, name="", tracking_uri="",
            storage="",
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
        "storage:",
    )
    assert [name for name in faulty if name not in text] == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: expected a positive whole number"),
        ({"workers": True}, "workers: expected"),
        (
            {"workers": "auto", "workers_per_device": 0},
            "workers_per_device: expected a positive whole number, got 0",
        ),
        (
            {"workers": "auto", "workers_per_device": "auto"},
            "workers_per_device: expected a positive whole number, got 'auto'",
        ),
        (
            {"workers": 8, "workers_per_device": 2},
            "workers_per_device: expected workers='auto' with it, got workers=8",
        ),
        (
            {"executor": ThreadPoolExecutor(1), "workers_per_device": 2},
            "workers_per_device: the executor places its workers itself",
        ),
        ({"executor": 3}, r"executor: expected something with submit\(\)"),
    ],
)
def test_bad_workers_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        flops_fit.find_optimal(print, "width", **options)


@pytest.mark.parametrize("options", [{"workers": 2}, {"executor": ThreadPoolExecutor(1)}])
def test_what_workers_cannot_get_is_refused_with_the_other_faults(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {
        "model_kwargs": {"file": open(__file__, "rb")},
        "dataset": [threading.Lock()],
        "loss_fn": partial(print, (i for i in range(3))),
        "recipe": flops_fit.Recipe(optimizer=partial(print, threading.local()), pilot=False),
    }
    with pytest.raises(ArgumentError) as caught:
        flops_fit.find_optimal(print, "width", compute_budgets=[-1], **arguments, **options)
    arguments["model_kwargs"]["file"].close()
    text = str(caught.value)
    for words in (
        "model_kwargs: cannot be sent to workers: model_kwargs['file'] is of type",
        "dataset: cannot be sent to workers: dataset[0] is of type _thread.lock",
        "pass a function that opens the data, as dataset=lambda: ...",
        "loss_fn: cannot be sent to workers: loss_fn.args[0] is of type builtins.generator",
        "recipe: cannot be sent to workers: recipe.optimizer.args[0] is of type _thread._local",
        "compute_budgets: expected positive",
    ):
        assert words in text
    assert not list(tmp_path.iterdir())


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
