"""The calls: their arguments are checked together, before anything is written or trained."""

import pytest

import flops_fit
from flops_fit.errors import ArgumentError


def test_every_fault_is_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError) as caught:
        flops_fit.find_optimal(
            "GPT", "width", dataset=[], loss_fn=None, compute_budgets=[-1],
            workers=-1, name="", tracking_uri="",
        )  # fmt: skip
    text = str(caught.value)
    faulty = (
        "model_cls",
        "dataset",
        "loss_fn",
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


def test_a_data_parallel_launch_is_refused_rather_than_left_to_hang(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="launched as 2 processes"):
        flops_fit.find_optimal(print, "width")


def test_analyze_of_nothing_says_so(tmp_path):
    with pytest.raises(flops_fit.FlopsFitError, match="no store at"):
        flops_fit.analyze("x", f"sqlite:///{tmp_path}/mlflow.db")
