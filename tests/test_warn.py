"""Warnings name the line of the user's code, not one of the package."""

import pytest
from optuna import create_study
from sweeps import SMALL_BUDGETS, SMALL_SIZES, Net, data
from torch import nn

import flops_fit
from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.execution import notices
from flops_fit.warn import warn_user


def test_outside_the_package_the_caller_s_own_line_is_named():
    with pytest.warns(FlopsFitWarning, match="something odd") as caught:
        warn_user("something odd")
    # Nothing of the package is on the stack but `warn_user` itself.
    assert caught[0].filename == __file__


def test_a_warning_deep_in_a_call_names_the_call():
    with pytest.warns(FlopsFitWarning, match="done already is not known") as caught:
        flops_fit.plan_sweep(
            Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy,
            compute_budgets=SMALL_BUDGETS, sizes=SMALL_SIZES,
            recipe=flops_fit.Recipe(max_epochs=1e9, pilot=False), tracking_uri="http://127.0.0.1:9",
        )  # fmt: skip
    assert caught[0].filename == __file__


def test_frames_of_a_library_between_ours_are_passed_over(monkeypatch):
    """As while a trial trains: our driver calls Optuna, which calls our worker."""
    code = "def train(study, act): study.optimize(lambda trial: act() or 0.0, n_trials=1)"
    ours: dict = {}
    exec(compile(code, notices.__file__, "exec"), ours)
    study = create_study()
    with pytest.warns(FlopsFitWarning, match="in mid-training") as caught:
        ours["train"](study, lambda: warn_user("in mid-training"))
    assert caught[0].filename == __file__
