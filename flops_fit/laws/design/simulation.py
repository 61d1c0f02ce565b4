"""The intervals that a design will give, simulated before anything is trained.

Losses are drawn at the planned N and D from an assumed law with an assumed noise. Each simulated
sweep goes through the same analysis as `flops_fit.fit`. The gain of additional runs follows from
the covariance of the five parameters (see `standard_errors`), exact to first order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.design.assumed_law import assumed_law
from flops_fit.laws.design.standard_errors import standard_errors
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.reach import require_reach
from flops_fit.laws.runs.table import read_runs
from flops_fit.validate import is_number, is_whole_number

# Default standard deviation of ln L from run to run.
NOISE = 0.005
# Seeds of models of this size differ by `NOISE`; of GPTs of 2,000 to 4,000 parameters by 1 to 3 %.
QUIET_PARAMS, MOST_NOISE = 1e6, 0.03
# Default number of simulated sweeps, and bootstrap draws in each.
SWEEPS = 32
DRAWS = 120
# Budgets at which to predict, times the largest one; additions are ranked at the second.
BEYOND = (1.0, 10.0, 100.0)
RANKED_AT = 10.0


def usual_noise(num_params: float) -> float:
    """The standard deviation of ln L from run to run to assume for models of this size."""
    noise = NOISE * (QUIET_PARAMS / num_params) ** 0.25
    return float(f"{min(max(noise, NOISE), MOST_NOISE):.2g}")


@dataclass(frozen=True)
class Addition:
    """Runs that could be added to a design.

    Attributes:
        kind: "budget" or "size".
        compute_budget: Budget of the runs, FLOPs.
        sizes: Values of the size parameter.
        N: Parameters of each run, shape (n,).
        D: Tokens of each run, shape (n,).
        flops: FLOPs of all of them together.
    """

    kind: str
    compute_budget: float
    sizes: tuple[object, ...]
    N: Array
    D: Array
    flops: float


@dataclass(frozen=True)
class ExpectedIntervals:
    """The intervals that a design will give.

    Attributes:
        table: One row per budget (the largest, and 10 and 100 times it): `compute_budget`,
            `extrapolation`, the assumed law's `num_params`, the median interval around it
            (`num_params_low num_params_high`), `factor` (half its width: N_opt is known to within
            this factor), `covered` (share of the simulated intervals that contain the truth) and
            `predicted` (share of the simulated sweeps in which a prediction is not withheld).
        additions: Possible additions, the best first: `kind compute_budget sizes flops`, `share`
            (of the design's FLOPs), `narrower` (share by which the interval at ten times the
            largest budget narrows), `factor` (after that), and `gain` (`narrower` over `share`).
        law: The assumed law.
    """

    table: pd.DataFrame
    additions: pd.DataFrame
    law: ParametricLaw


def expected_intervals(
    runs: pd.DataFrame,
    additions: Iterable[Addition] = (),
    *,
    law: ParametricLaw | None = None,
    noise: float = NOISE,
    num_sweeps: int = SWEEPS,
    seed: int = 0,
) -> ExpectedIntervals:
    """Simulate the intervals that a design will give.

    Args:
        runs: The design, one row per run: `compute_budget size num_params num_tokens flops`.
        additions: Possible additions to it.
        law: The law to assume; by default `assumed_law` of the design.
        noise: Standard deviation of ln L from run to run.
        num_sweeps: Number of sweeps to simulate.
        seed: Seed of the simulation.

    Raises:
        ArgumentError: An argument is invalid, or the design cannot separate five parameters.
        FitError: No law could be fitted to any of the simulated sweeps.
    """
    require_sound(law, noise, num_sweeps)
    law = assumed_law(runs) if law is None else law
    C = float(runs["compute_budget"].max()) * np.array(BEYOND)
    design = _Design(runs, law, C, noise)
    before = design.error()  # Refuses a design that cannot work before anything is simulated.
    drawn = [_one_sweep(law, runs, C, noise, [seed, i]) for i in range(num_sweeps)]
    table = _table(law, C, drawn)
    factor = float(table["factor"][BEYOND.index(RANKED_AT)])
    rows = [_gain(design, addition, before, factor) for addition in additions]
    ranked = pd.DataFrame(rows, columns=list(ADDITION_COLUMNS))
    ranked = ranked.sort_values("gain", ascending=False, kind="stable", ignore_index=True)
    return ExpectedIntervals(table, ranked, law)


ADDITION_COLUMNS = (
    "kind", "compute_budget", "sizes", "flops", "share", "narrower", "factor", "gain",
)  # fmt: skip


def _one_sweep(
    law: ParametricLaw, runs: pd.DataFrame, C: Array, noise: float, seed: list[int]
) -> Array:
    """One simulated sweep: the ends of ln N_opt and whether it is predicted, shape (3, k).

    All of it is NaN where no law could be fitted.
    """
    errors = np.random.default_rng(seed).standard_normal(len(runs))
    # All sweeps get the same root mean square of errors, so that few of them suffice for the width.
    # The coverage of intervals by Student's t, which scale with the errors, does not change.
    errors *= noise / math.sqrt(float(np.mean(errors**2)))
    loss = law.loss(runs["num_params"], runs["num_tokens"])
    drawn = runs.assign(loss=loss * np.exp(errors))
    with np.errstate(all="ignore"):
        try:
            findings = analyse(read_runs(drawn)[0], Options(num_draws=DRAWS, seed=seed[1]))
            predicted = predict_intervals(findings, C)
        except FitError:
            return np.full((3, len(C)), math.nan)
        ends = np.log(predicted[["num_params_low", "num_params_high"]].to_numpy(float)).T
    return np.vstack([ends, [float(_is_predicted(findings, budget)) for budget in C]])


def _is_predicted(findings: Findings, budget: float) -> bool:
    """Whether the findings give a prediction with an interval at a budget."""
    try:
        require_reach(findings, np.array([budget]))
    except FitError:
        return False
    return findings.law is not None


def _table(law: ParametricLaw, C: Array, drawn: Sequence[Array]) -> pd.DataFrame:
    """`ExpectedIntervals.table` from the simulated sweeps."""
    low, high, predicted = np.moveaxis(np.array(drawn), 1, 0)  # (sweeps, budgets) each
    if np.isnan(low).all():
        raise FitError(
            "in none of the simulated sweeps do the planned runs carry a parametric law with "
            "intervals: plan more budgets or sizes, over a wider range"
        )
    truth = np.log(law.n_opt(C))
    fitted = ~np.isnan(low).any(axis=1)
    low, high = low[fitted], high[fitted]
    half = np.median(high - low, axis=0) / 2
    return pd.DataFrame(
        {
            "compute_budget": C,
            "extrapolation": C / C[0],
            "num_params": np.exp(truth),
            "num_params_low": np.exp(truth - half),
            "num_params_high": np.exp(truth + half),
            "factor": np.exp(half),
            "covered": ((low <= truth) & (truth <= high)).mean(axis=0),
            "predicted": np.nan_to_num(predicted).mean(axis=0),
        }
    )


@dataclass(frozen=True)
class _Design:
    """A design to which runs can be added.

    Attributes:
        runs: One row per planned run.
        law: The assumed law.
        C: Budgets at which to predict, FLOPs, shape (k,).
        noise: Standard deviation of ln L.
    """

    runs: pd.DataFrame
    law: ParametricLaw
    C: Array
    noise: float

    def error(self, added: Addition | None = None) -> float:
        """Standard error of ln N_opt at the budget at which additions are ranked."""
        N, D = (self.runs[name].to_numpy(float) for name in ("num_params", "num_tokens"))
        if added is not None:
            N, D = np.concatenate([N, added.N]), np.concatenate([D, added.D])
        errors = standard_errors(self.law, N, D, noise=self.noise, compute_budgets=self.C)
        return float(errors.log_num_params[BEYOND.index(RANKED_AT)])


def _gain(design: _Design, added: Addition, before: float, factor: float) -> dict[str, object]:
    """A row of `ExpectedIntervals.additions`.

    Args:
        design: The design.
        added: The runs to add.
        before: Standard error of ln N_opt without them.
        factor: N_opt is known to within this factor without them.
    """
    narrower = 1 - design.error(added) / before
    share = added.flops / float(design.runs["flops"].sum())
    return {
        "kind": added.kind,
        "compute_budget": added.compute_budget,
        "sizes": added.sizes,
        "flops": added.flops,
        "share": share,
        "narrower": narrower,
        "factor": factor ** (1 - narrower),
        "gain": narrower / share,
    }


def require_sound(law: Any, noise: Any, num_sweeps: Any) -> None:
    """Raise ArgumentError with every argument that is not valid."""
    faults = []
    if not is_number(noise) or not 0 < noise < 0.5:
        faults.append(f"noise: expected a share of the loss, between 0 and 0.5, got {noise!r}")
    if law is not None and not isinstance(law, ParametricLaw):
        faults.append(f"law: expected a ParametricLaw, such as Result.law, got {law!r}")
    if not is_whole_number(num_sweeps) or num_sweeps < 1:
        faults.append(f"num_sweeps: expected a positive whole number, got {num_sweeps!r}")
    if faults:
        raise ArgumentError(faults)
