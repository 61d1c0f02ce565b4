"""The course of a sweep with a goal, simulated under an assumed law."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.laws.design.candidates import lattice
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.rounds import PRECISE, Reached, decide, fit_round
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.parametric_law import ParametricLaw

NO_LAW = "the runs determine no law"
# C and N of a further row, each of shape (n,), given the budgets begun and the FLOPs left; empty
# where there is none.
FurtherRow = Callable[[Collection[float], float], tuple[Array, Array]]


@dataclass(frozen=True)
class Course:
    """A simulated sweep with a goal.

    Attributes:
        reached: How precise the answer was at each round.
        findings: The laws at its end; None where there were none.
        end: Why it ended.
    """

    reached: tuple[Reached, ...]
    findings: Findings | None
    end: str

    @property
    def is_precise(self) -> bool:
        """Whether the goal was reached."""
        return self.end.startswith(PRECISE)

    @property
    def flops(self) -> float:
        """FLOPs spent."""
        return self.reached[-1].flops


def simulate_course(
    law: ParametricLaw,
    goal: Goal,
    C: Array,
    N: Array,
    *,
    noise: float,
    seed: int,
    further_row: FurtherRow | None = None,
) -> Course:
    """Simulate a sweep with a goal.

    Args:
        law: The law that losses follow.
        goal: The goal, with the budgets that may be trained and the FLOPs that may be spent.
        C: Budgets of the runs that it begins with, FLOPs, shape (n,).
        N: Parameters of each, shape (n,).
        noise: Standard deviation of ln L from run to run.
        seed: Seed of the noise.
        further_row: The row that is begun where the runs determine no law; None if none is.
    """
    rng = np.random.default_rng(seed)
    runs = _trained(law, C, N, noise, rng)
    reached: list[Reached] = []
    while True:
        spent = float(runs["flops"].sum())
        findings = fit_round(runs, seed)
        if findings is None:
            reached.append(Reached(spent, len(runs)))
            if further_row is not None:
                assert goal.max_flops is not None
                C, N = further_row(set(runs["compute_budget"]), goal.max_flops - spent)
            if further_row is None or not len(C):
                return Course(tuple(reached), None, NO_LAW)
            runs = pd.concat([runs, _trained(law, C, N, noise, rng)], ignore_index=True)
            continue
        candidates = lattice(findings, goal.budgets)
        decision = decide(findings, goal, candidates, spent)
        reached.append(decision.reached)
        if decision.end:
            return Course(tuple(reached), findings, decision.end)
        chosen = candidates.iloc[[run for choice in decision.choices for run in choice.runs]]
        C, N = (chosen[name].to_numpy(float) for name in ("compute_budget", "num_params"))
        runs = pd.concat([runs, _trained(law, C, N, noise, rng)], ignore_index=True)


def _trained(
    law: ParametricLaw, C: Array, N: Array, noise: float, rng: np.random.Generator
) -> pd.DataFrame:
    x = np.log(N)
    D = np.exp(np.log(C) - log_flops_per_token(x, law.cost))
    loss = law.loss(N, D) * np.exp(noise * rng.standard_normal(len(x)))
    columns = (C, x.round(6), N, D, C, loss)
    names = ("compute_budget", "size", "num_params", "num_tokens", "flops", "loss")
    return pd.DataFrame(dict(zip(names, columns, strict=True)))
