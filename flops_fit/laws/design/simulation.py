"""How wide the answer's intervals will be, before anything is trained.

Losses are drawn at the planned N and D from an assumed law with an assumed noise, and each drawn
sweep goes through the whole analysis, just as `flops_fit.fit` does it. What an addition would gain
follows from the covariance of the five parameters (`planning.expect`), exact to first order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.design.assumed_law import assumed_law
from flops_fit.laws.design.standard_errors import expect
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals, require_reach
from flops_fit.laws.runs.table import read_runs

NOISE = 0.005
SWEEPS = 32
DRAWS = 120
BEYOND = (1.0, 10.0, 100.0)
RANKED_AT = 10.0


@dataclass(frozen=True)
class Addition:
    """Runs that might be added to a design.

    Attributes:
        kind: "budget" or "size".
        compute_budget: Of the runs, FLOPs.
        sizes: Values of the size parameter.
        N: Parameters of each run, shape (n,).
        D: Tokens of each, shape (n,).
        flops: FLOPs of all of them.
    """

    kind: str
    compute_budget: float
    sizes: tuple[object, ...]
    N: Array
    D: Array
    flops: float


@dataclass(frozen=True)
class ExpectedIntervals:
    """What a design will be able to say.

    Attributes:
        table: A row a budget (the largest, and 10 and 100 times it): `compute_budget`,
            `extrapolation`, the assumed law's `num_params`, the median interval around it
            (`num_params_low num_params_high`), `factor` (half its width: N_opt is known to within
            this factor), `covered` (share of the simulated intervals that hold the truth) and
            `predicted` (share of the simulated sweeps in which a prediction is made, not withheld).
        additions: What might be added, the best first: `kind compute_budget sizes flops share`
            (of the design's FLOPs), `narrower` (share by which the interval at ten times the
            largest budget narrows), `factor` (then), and `gain` (`narrower` over `share`).
        law: The law assumed.
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
    """How wide the intervals of a design will be.

    Args:
        runs: The design, a row a run: `compute_budget size num_params num_tokens flops`.
        additions: What might be added to it.
        law: The law to assume; by default `assumed_law` of the design.
        noise: Standard deviation of ln L from run to run.
        num_sweeps: Sweeps to simulate.
        seed: Seed of the simulation.

    Raises:
        ArgumentError: An argument cannot work, or the design cannot tell five parameters apart.
        FitError: In none of the simulated sweeps does a law stand.
    """
    _require_sound(law, noise, num_sweeps)
    law = assumed_law(runs) if law is None else law
    C = float(runs["compute_budget"].max()) * np.array(BEYOND)
    before = expect(law, runs["num_params"], runs["num_tokens"], noise=noise, compute_budgets=C)
    drawn = [_one_sweep(law, runs, C, noise, [seed, i]) for i in range(num_sweeps)]
    table = _table(law, C, drawn)
    told = [_gain(runs, law, C, noise, before.log_num_params, table, each) for each in additions]
    ranked = pd.DataFrame(told, columns=list(ADDITION_COLUMNS))
    ranked = ranked.sort_values("gain", ascending=False, kind="stable", ignore_index=True)
    return ExpectedIntervals(table, ranked, law)


ADDITION_COLUMNS = (
    "kind", "compute_budget", "sizes", "flops", "share", "narrower", "factor", "gain",
)  # fmt: skip


def _one_sweep(
    law: ParametricLaw, runs: pd.DataFrame, C: Array, noise: float, seed: list[int]
) -> Array:
    """Rows (low, high) of ln N_opt and whether it is predicted; NaN where no law stands."""
    errors = np.random.default_rng(seed).standard_normal(len(runs))
    # All sweeps get the same root mean square: few of them then tell the width, and the coverage of
    # intervals by Student's t, which follow the scale of the errors, stays what it is.
    errors *= noise / math.sqrt(float(np.mean(errors**2)))
    loss = law.loss(runs["num_params"], runs["num_tokens"])
    drawn = runs.assign(loss=loss * np.exp(errors))
    nothing = np.full((3, len(C)), math.nan)
    with np.errstate(all="ignore"):
        try:
            findings = analyse(read_runs(drawn)[0], Options(num_draws=DRAWS, seed=seed[1]))
            told = predict_intervals(findings, C)
        except FitError:
            return nothing
    ends = np.log(told[["num_params_low", "num_params_high"]].to_numpy(float)).T
    return np.vstack([ends, [float(_is_told(findings, budget)) for budget in C]])


def _is_told(findings: Findings, budget: float) -> bool:
    try:
        require_reach(findings, np.array([budget]))
    except FitError:
        return False
    return findings.law is not None


def _table(law: ParametricLaw, C: Array, drawn: Sequence[Array]) -> pd.DataFrame:
    low, high, told = np.moveaxis(np.array(drawn), 1, 0)  # (sweeps, budgets) each
    if np.isnan(low).all():
        raise FitError(
            "in none of the simulated sweeps do the planned runs carry a parametric law with "
            "intervals: plan more budgets or sizes, over a wider range"
        )
    truth = np.log(law.n_opt(C))
    stands = ~np.isnan(low).any(axis=1)
    low, high = low[stands], high[stands]
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
            "predicted": np.nan_to_num(told).mean(axis=0),
        }
    )


def _gain(
    runs: pd.DataFrame,
    law: ParametricLaw,
    C: Array,
    noise: float,
    before: Array,
    table: pd.DataFrame,
    added: Addition,
) -> dict[str, object]:
    """A row of `ExpectedIntervals.additions`."""
    at = BEYOND.index(RANKED_AT)
    N = np.concatenate([runs["num_params"].to_numpy(float), added.N])
    D = np.concatenate([runs["num_tokens"].to_numpy(float), added.D])
    after = expect(law, N, D, noise=noise, compute_budgets=C).log_num_params
    narrower = 1 - float(after[at] / before[at])
    share = added.flops / float(runs["flops"].sum())
    return {
        "kind": added.kind,
        "compute_budget": added.compute_budget,
        "sizes": added.sizes,
        "flops": added.flops,
        "share": share,
        "narrower": narrower,
        "factor": float(table["factor"][at]) ** (1 - narrower),
        "gain": narrower / share,
    }


def _require_sound(law: object, noise: object, num_sweeps: object) -> None:
    faults = []
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 < noise < 0.5:
        faults.append(f"noise: expected a share of the loss, between 0 and .5, got {noise!r}")
    if law is not None and not isinstance(law, ParametricLaw):
        faults.append(f"law: expected a ParametricLaw, as Result.law, got {law!r}")
    if isinstance(num_sweeps, bool) or not isinstance(num_sweeps, int) or num_sweeps < 1:
        faults.append(f"num_sweeps: expected a positive whole number, got {num_sweeps!r}")
    if faults:
        raise ArgumentError(faults)
