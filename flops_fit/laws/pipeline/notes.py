"""Checks on how the headline was fitted: its form, repetition, shared errors, suspected runs."""

from __future__ import annotations

from flops_fit.display import number_text
from flops_fit.display.number_text import count
from flops_fit.laws.check import Check, counted
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.inference.repetition_constants import check_excess_parameters
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.pipeline.fit_data import FitData
from flops_fit.laws.runs.points import Points


def headline_notes(data: FitData, fit: ParametricFit, choice: str, spread: Spread) -> list[Check]:
    """Everything to note about the headline.

    Args:
        data: The runs that were fitted.
        fit: The headline fit.
        choice: Why it has its form.
        spread: Its uncertainty.
    """
    notes = [Check("form", "note", f"{choice}.")] if fit.form != "five" else []
    if "gamma" in fit.at_bound:
        notes.append(_note_on_gamma(fit.law.gamma))
    law = data.repetition
    if law is not None:
        notes.append(_note_on_repetition(law))
        notes += check_excess_parameters(law, data.counted, fit.form)
    if "cluster" in spread.draws:
        notes.append(_note_on_shared_errors(spread.num_clusters))
    return notes


def _note_on_gamma(gamma: float) -> Check:
    message = f"gamma ran to {gamma:g}, a bound of the search"
    if gamma < 1:
        message += ": the law is all but the larger of its two terms"
    advice = "E, A, B, alpha and beta say little by themselves; predictions rest on the bent law."
    return Check("gamma-at-bound", "note", f"{message}.", advice)


def warn_of_suspects(suspects: Points, fit: ParametricFit, without: ParametricFit) -> Check:
    """Name the runs that may be outliers, and what they do to the answer.

    Args:
        suspects: The suspected runs.
        fit: The headline fit, with them.
        without: The same fit without them.
    """
    listed = " and ".join(
        f"N = {count(N)}, D = {count(D)} (loss {number_text.loss(loss)})"
        for N, D, loss in zip(suspects.N, suspects.D, suspects.loss, strict=True)
    )
    they = "it" if len(suspects) == 1 else "them"
    message = (
        f"{counted(len(suspects), 'run')} may be out of line: {listed}. Without {they} a is "
        f"{without.law.a:.3f}, with {they} {fit.law.a:.3f}; the intervals hold both answers."
    )
    return Check("suspected-outliers", "warn", message, "Train again there, or add runs.")


def warn_of_unsettled(law: RepetitionLaw, other: RepetitionLaw) -> Check:
    """Say that R_D* depends on the objective.

    Args:
        law: The law of the headline.
        other: The law by a Huber fit of all finished runs.
    """
    message = (
        f"R_D* depends on how it is fitted: {law.r_data:.3g} by the headline, {other.r_data:.3g} "
        "by a Huber fit of all runs, further apart than their errors. Its interval holds both."
    )
    advice = (
        "Runs whose loss rose with more passes follow no such law: fit those with fewer passes."
    )
    return Check("repetition-unsettled", "warn", message, advice)


def _note_on_repetition(law: RepetitionLaw) -> Check:
    fitted = law.fading_error is not None
    source = "fitted to these runs" if fitted else "of Muennighoff et al. 2023, not fitted"
    message = f"the law is one of effective tokens, R_D* = {law.r_data:.4g} ({source}); "
    if law.params_error is None:
        message += "parameters count in full."
    else:
        message += f"and of effective parameters, R_N* = {law.r_params:.4g} (fitted too)."
    return Check("effective-tokens", "note", message)


def _note_on_shared_errors(num_sizes: int) -> Check:
    message = (
        f"runs of one size are assumed to share an error ({num_sizes} sizes), which widens the "
        "intervals."
    )
    advice = (
        "A learning rate that suits some sizes only causes this, and so does a law that does not "
        "hold; see shared_errors."
    )
    return Check("shared-errors", "note", message, advice)
