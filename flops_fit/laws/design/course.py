"""The course of a sweep with a goal, simulated under an assumed law."""

from __future__ import annotations

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
    law: ParametricLaw, goal: Goal, C: Array, N: Array, *, noise: float, seed: int
) -> Course:
    """Simulate a sweep with a goal.

    Args:
        law: The law that losses follow.
        goal: The goal, with the budgets that may be trained and the FLOPs that may be spent.
        C: Budgets of the runs that it begins with, FLOPs, shape (n,).
        N: Parameters of each, shape (n,).
        noise: Standard deviation of ln L from run to run.
        seed: Seed of the noise.
    """
    rng = np.random.default_rng(seed)
    runs = _trained(law, C, N, noise, rng)
    reached: list[Reached] = []
    while True:
        spent = float(runs["flops"].sum())
        findings = fit_round(runs, seed)
        if findings is None:
            return Course((*reached, Reached(spent, len(runs))), None, "the runs determine no law")
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
