"""Whether the losses of two sweeps can be compared at all.

What sweeps write down of themselves is looked at: the loss, the held-out data, what D counts and
how FLOPs are counted. Tables of runs say nothing of it, which is said.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flops_fit.display.number_text import flops
from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import TOO_FAR
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array

Meta = Mapping[str, str]
# Budgets within 10 % are one; sweeps further apart than a factor of ten are not compared.
SAME_BUDGET, FARTHEST_APART = 1.1, 10.0
# FLOPs for a parameter and token that differ by more are doubted.
OTHER_COUNT = 1.5
# Field of the metadata, what it is, and why sweeps that differ in it cannot be compared.
MUST_AGREE = (
    ("loss_fn", "the loss", "their values are of different quantities"),
    ("data_unit", "what D counts", "a loss per token is none per example"),
    ("flops_convention", "how FLOPs are counted", "equal FLOPs are not equal compute"),
)


def incomparable(
    names: tuple[str, str], sweeps: tuple[Findings, Findings], *, per_byte: bool
) -> list[str]:
    """Why two sweeps cannot be compared; empty if nothing speaks against it.

    Args:
        names: Of the sweeps.
        sweeps: Their laws, with what they wrote down of themselves.
        per_byte: Whether losses are compared per byte of text, which other tokens then may make up.
    """
    metas = [findings.meta for findings in sweeps]
    faults = []
    for key, what, why in MUST_AGREE:
        here, there = (meta.get(key) for meta in metas)
        if here and there and here != there:
            faults.append(f"{what} differs: {here} in {names[0]!r}, {there} in {names[1]!r}; {why}")
    held_out = [_held_out(meta) for meta in metas]
    if all(held_out) and held_out[0] != held_out[1] and not per_byte:
        faults.append(
            f"the held-out data of {names[0]!r} and {names[1]!r} differ, and so would the loss of "
            "one and the same model; pass the same eval_dataset to both sweeps. If it is one text "
            "in other tokens, pass bytes_per_token={name: bytes, ...}"
        )
    if _gap(sweeps) > FARTHEST_APART:
        faults.append(f"{_apart(names, sweeps)}; train budgets that both have")
    return faults


def doubts(
    names: tuple[str, str], sweeps: tuple[Findings, Findings], *, per_byte: bool
) -> list[Check]:
    """What is to be minded about a comparison."""
    found = []
    metas = [findings.meta for findings in sweeps]
    if any(not meta.get("loss_fn") for meta in metas):
        message = (
            "tables of runs do not say on which held-out data, and with which loss, they were "
            "measured."
        )
        found.append(
            Check("unknown-loss", "note", message, "Compare only what was measured alike.")
        )
    if per_byte:
        message = (
            "losses are compared per byte of text; that the held-out text is the same is taken on "
            "trust."
        )
        found.append(Check("per-byte", "note", message, ""))
    counts = [meta.get("eval_examples") for meta in metas]
    if all(counts) and counts[0] != counts[1]:
        message = f"the losses are means over {counts[0]} and {counts[1]} held-out examples."
        advice = "Use Recipe(eval_examples=...) of one number for both."
        found.append(Check("held-out-parts", "warn", message, advice))
    if 1 < _gap(sweeps) / SAME_BUDGET <= FARTHEST_APART:
        message = f"{_apart(names, sweeps)}."
        found.append(Check("no-common-budgets", "warn", message, "Train budgets that both have."))
    return [*found, *_of_counting(names, sweeps)]


def _of_counting(names: tuple[str, str], sweeps: tuple[Findings, Findings]) -> list[Check]:
    """Whether tables seem to count FLOPs otherwise."""
    if all(findings.meta.get("flops_convention") for findings in sweeps):
        return []
    runs = [findings.fitted_runs for findings in sweeps]
    each = [(r["compute_budget"] / (r["num_params"] * r["num_tokens"])).median() for r in runs]
    ratio = each[1] / each[0]
    if not (np.isfinite(ratio) and max(ratio, 1 / ratio) > OTHER_COUNT):
        return []
    message = (
        f"a parameter and token cost {each[0]:.2g} FLOPs in {names[0]!r} and {each[1]:.2g} in "
        f"{names[1]!r} (medians)."
    )
    advice = "If FLOPs are counted otherwise, equal FLOPs are not equal compute: count both alike."
    return [Check("other-flops", "warn", message, advice)]


def require_not_below(findings: Findings, C: Array, *, anyway: bool) -> None:
    """Raise FitError for budgets more than a thousand times below the smallest of a sweep."""
    smallest = float(findings.fitted_runs["compute_budget"].min())
    least = float(np.min(C))
    if least * TOO_FAR * (1 + 1e-6) < smallest and not anyway:
        raise FitError(
            f"no comparison so far below the runs: {flops(least)} FLOPs are "
            f"{smallest / least:,.0f} times less than the smallest budget, {flops(smallest)}. "
            "anyway=True (--anyway) shows the numbers nevertheless."
        )


def _gap(sweeps: tuple[Findings, Findings]) -> float:
    """The factor between the ranges of the budgets; at most 1 where they overlap."""
    spans = [findings.fitted_runs["compute_budget"] for findings in sweeps]
    return float(max(span.min() for span in spans) / min(span.max() for span in spans))


def _apart(names: tuple[str, str], sweeps: tuple[Findings, Findings]) -> str:
    spans = [findings.fitted_runs["compute_budget"] for findings in sweeps]
    ends = [f"{flops(span.min())} to {flops(span.max())}" for span in spans]
    return (
        f"the sweeps have no common budgets: {names[0]!r} has {ends[0]} FLOPs, {names[1]!r} has "
        f"{ends[1]}"
    )


def _held_out(meta: Meta) -> tuple[str, ...]:
    """What tells held-out data apart; empty if it is not known."""
    fingerprint = meta.get("data_fingerprint", "")
    if "+" in fingerprint:  # those of training and held-out data, given apart
        return (fingerprint.split("+")[1],)
    return (fingerprint, meta.get("held_out", "")) if fingerprint else ()
