"""load_model: a model that a sweep has kept, built again and given its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from flops_fit import tracking
from flops_fit.display.number_text import flops
from flops_fit.errors import ArgumentError, SweepError, in_short
from flops_fit.sweep.kept.shelf import WEIGHTS
from flops_fit.sweep.kept.weights import Note, read, read_note
from flops_fit.sweep.task.hashing import qualified_name, short_name
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.ledger import Ledger
from flops_fit.tracking.logged_models import KeptModel, kept_models, read_model_file
from flops_fit.validate import is_positive

_SAME_BUDGET = 1e-3  # relative: budgets are typed as they are shown


def load_model(
    model_cls: Callable[..., nn.Module],
    compute_budget: float,
    *,
    model_kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
) -> nn.Module:
    """The best model that a sweep has trained with a compute budget.

    The sweep must have been run with `Recipe(keep_models="best")` or `"all"`. The model is built by
    `model_cls` with the arguments that it was trained with, and given its weights, which are read
    from MLflow as safetensors. Nothing is unpickled.

    Args:
        model_cls: The class or function that the sweep was given.
        compute_budget: The budget C in FLOPs, one of the sweep's.
        model_kwargs: Arguments of `model_cls` beside its size, which take the place of the recorded
            ones; those that are no plain values are not recorded and must be given.
        name: Name of the sweep; by default the model class's.
        tracking_uri: MLflow store; by default `MLFLOW_TRACKING_URI`, else `mlruns/mlflow.db`.

    Returns:
        The model, on the CPU and in evaluation mode.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        SweepError: There is no such sweep, no model of this budget, or its weights do not fit.
    """
    address = StoreAddress(name, tracking_uri)
    problems = address.problems()
    if not callable(model_cls):
        problems.append(f"model_cls: expected a class or function, got {model_cls!r}")
    if not is_positive(compute_budget):
        problems.append(f"compute_budget: expected a positive number, got {compute_budget!r}")
    if problems:
        raise ArgumentError(problems, "invalid arguments of load_model:")
    ledger = address.find_ledger(short_name(qualified_name(model_cls)))
    return read_model_file(
        ledger,
        _kept(ledger, compute_budget),
        WEIGHTS,
        lambda file: _built(model_cls, model_kwargs or {}, file),
    )


def _kept(ledger: Ledger, compute_budget: float) -> KeptModel:
    """The best model of a budget, among those of the sweep's latest setting.

    Raises:
        SweepError: None is kept; lists the budgets of which one is.
    """
    setting = tracking.read_meta(ledger).get("setting", "")
    models = [model for model in kept_models(ledger) if model.setting == setting]
    of_budget = [
        model
        for model in models
        if math.isclose(model.compute_budget, compute_budget, rel_tol=_SAME_BUDGET)
    ]
    if of_budget:
        return min(of_budget, key=lambda model: model.loss)
    if models:
        budgets = ", ".join(map(flops, sorted({model.compute_budget for model in models})))
        raise SweepError(
            f"the sweep {ledger.name!r} keeps no model of C={flops(compute_budget)}, but of C="
            f"{budgets}"
        )
    raise SweepError(
        f"the sweep {ledger.name!r} keeps no models; train with Recipe(keep_models='best')"
    )


def _built(
    model_cls: Callable[..., nn.Module], model_kwargs: Mapping[str, Any], file: Path
) -> nn.Module:
    note = read_note(file)
    if note is None:
        raise SweepError(f"{file} is damaged, or no file of weights of flops-fit")
    unknown = [key for key in note.not_plain if key not in model_kwargs]
    if unknown:
        raise ArgumentError(
            f"model_kwargs: give {', '.join(unknown)}, as the sweep was given: only plain values "
            "are kept with the weights"
        )
    arguments = {**note.model_kwargs, **model_kwargs, note.size_param: note.size}
    try:
        model = model_cls(**arguments)
        _give_weights(model, note, file)
    except Exception as error:  # of the user's class, or of weights that do not fit it
        raise SweepError(
            f"the weights of {note.model} with {note.size_param}={note.size!r} do not fit "
            f"{qualified_name(model_cls)}: {in_short(error)}"
        ) from error
    return model.eval()


def _give_weights(model: nn.Module, note: Note, file: Path) -> None:
    missing, unexpected = model.load_state_dict(read(file), strict=False)
    wrong = [*(key for key in missing if key not in note.left_out), *unexpected]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} stand only on one side")
