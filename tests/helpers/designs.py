"""Findings of simulated sweeps, for the tests of what is to be trained next."""

from dataclasses import replace

import numpy as np
import pandas as pd
from named_laws import LAWS

from flops_fit.laws.findings import Findings
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.laws.runs.table import read_runs

LAW = LAWS["chinchilla"][0]
BUDGETS = (1e18, 4e18, 2e19, 1e20)
TARGET = 1e22


def sweep(sizes=5, noise=0.003, half_width=0.5, seed=3, budgets=BUDGETS) -> pd.DataFrame:
    """Runs of Chinchilla's law around its optima."""
    return simulate_isoflop(
        LAW, budgets, num_sizes=sizes, noise=noise, half_width=half_width, seed=seed
    )


def found(table: pd.DataFrame) -> Findings:
    """The laws of a table."""
    with np.errstate(all="ignore"):
        return analyse(read_runs(table)[0], Options(num_draws=20))


def with_misfit(findings: Findings, ratio: float) -> Findings:
    """The same with a misfit of this variance, over the noise's, and no other possible."""
    laws = [
        replace(law, settings=(replace(law.settings[0], weight=1.0, ratio=ratio),))
        for law in findings.misfit.laws
    ]
    return replace(findings, misfit=replace(findings.misfit, laws=tuple(laws)))


def possible(rows: dict) -> pd.DataFrame:
    """Possible runs: for each budget, decades of N above its optimum."""
    C = np.concatenate([np.full(len(decades), budget) for budget, decades in rows.items()])
    N = LAW.n_opt(C) * 10 ** np.concatenate([np.asarray(d, float) for d in rows.values()])
    return pd.DataFrame(
        {"compute_budget": C, "num_params": N, "num_tokens": C / (6 * N), "flops": C}
    )
