"""flops_fit.laws.pipeline.analyse.notes."""

from __future__ import annotations

from flops_fit.laws.check import Check
from flops_fit.laws.fitting.parametric import (
    ParametricFit,
)
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.inference.repetition_constants import (
    check_parameters,
)
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.pipeline.fit_data import Data


def _said_of(data: Data, fit: ParametricFit, choice: str) -> tuple[Check, ...]:
    """What is said for the record: the form chosen, and effective tokens."""
    said = [Check("form", "note", f"{choice}.")] if fit.form == "tied" else []
    law = data.repetition
    if law is not None:
        said.append(_said_of_repetition(law))
        assert data.unique is not None
        said += check_parameters(law, data.num_params, data.num_tokens, data.loss, data.unique)
    return tuple(said)


def _said_of_repetition(law: RepetitionLaw) -> Check:
    fitted = law.fading_error is not None
    whence = "fitted to these runs" if fitted else "of Muennighoff et al. 2023, not fitted"
    message = f"the law holds in effective tokens, R_D* = {law.r_data:.4g} ({whence}); "
    if law.params_error is None:
        message += "parameters count in full."
    else:
        message += f"and in effective parameters, R_N* = {law.r_params:.4g} (fitted too)."
    return Check("effective-tokens", "note", message)


def _said_of_errors(spread: Spread) -> list[Check]:
    """That runs share errors, where the intervals allow for it."""
    if "cluster" not in spread.draws:
        return []
    message = (
        f"runs of one size are taken to share an error ({spread.num_clusters} sizes): intervals "
        "are wider for it."
    )
    advice = "A learning rate that suits some sizes only does this; see shared_errors."
    return [Check("shared-errors", "note", message, advice)]
