"""Do the 95 % intervals of metrics contain the truth, and how many metrics are refused?

Sweeps of Chinchilla's law with planted metrics: a sigmoid or a power of the loss or of compute, one
that only lifts off at the largest budget, one that depends on N beside the loss, one that is at its
ceiling, and pure noise. Prints a row per truth, design and noise: how many are refused, and at 1,
10 and 100 times the largest budget how many intervals hold the mean (`cover`) and a new run
(`run`), how wide they are, and the root mean square error. Noise is a share of the metric's range
(of a perplexity, a fifth of it in the logarithm); ln L scatters by .002:

    python benchmarks/metrics.py [sweeps] [5x7 or 4x5] [noise]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

from flops_fit import fit
from flops_fit.errors import FitError
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop

LAW = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
DESIGNS = {"5x7": (5, 7), "4x5": (4, 5)}
FIRST, LAST = 1e18, 1e20
FACTORS = (1.0, 10.0, 100.0)
WORST, BEST = float(LAW.l_opt(FIRST)), float(LAW.l_opt(LAST))
RANGE = WORST - BEST
LOSS_NOISE = 0.002
Truth = Callable[[Array, Array, Array], Array]


def sigmoid(low: float, high: float, middle: float, width: float) -> Truth:
    """Of the loss; middle and width in units of the range of the optima's losses."""
    return lambda N, D, L: (
        low + (high - low) / (1 + np.exp((L - WORST + middle * RANGE) / (width * RANGE)))
    )


def place(N: Array, D: Array) -> tuple[Array, Array]:
    """Ln C between 0 and 1 over the budgets, and ln N less its optimum."""
    C = 6 * N * D
    return np.log(C / FIRST) / np.log(LAST / FIRST), np.log(N / LAW.n_opt(C))


def of_compute(N: Array, D: Array, L: Array) -> Array:
    u, v = place(N, D)
    return 1 - 0.7 * np.exp(-0.55 * u) * (1 + 0.05 * v**2)


def sigmoid_of_compute(N: Array, D: Array, L: Array) -> Array:
    u, v = place(N, D)
    return 0.1 + 0.8 / (1 + np.exp(0.05 * v**2 - (u - 0.7) / 0.3))


def of_loss_and_size(N: Array, D: Array, L: Array) -> Array:
    shifted = L - 0.03 * RANGE * np.log(N / LAW.n_opt(FIRST))
    return sigmoid(0.25, 0.9, 0.6, 0.25)(N, D, shifted)


TRUTHS: dict[str, Truth] = {
    "sigmoid of the loss": sigmoid(0.25, 0.9, 0.6, 0.25),
    "power of the loss, up": lambda N, D, L: 1 - 0.75 * ((L - LAW.E) / (WORST - LAW.E)) ** 1.3,
    "power of the loss, down": lambda N, D, L: 0.6 * ((L - LAW.E) / (WORST - LAW.E)) ** 0.8,
    "perplexity": lambda N, D, L: np.exp(L),
    "unbounded score": lambda N, D, L: 30 - 8 * (L - LAW.E) ** 0.7,
    "power of compute": of_compute,
    "sigmoid of compute": sigmoid_of_compute,
    "loss and size": of_loss_and_size,
    "lifts off at the end": sigmoid(0.25, 0.95, 1.1, 0.15),
    "at its ceiling": sigmoid(0.1, 0.99, 0.05, 0.02),
    "noise": lambda N, D, L: 0.25 + 0 * L,
}


def one_sweep(truth: str, design: str, noise: float, seed: int) -> dict[str, object]:
    """One simulated sweep: whether refused, and per factor whether the intervals hold."""
    f, rng = TRUTHS[truth], np.random.default_rng(seed + 10**6)
    rows, sizes = DESIGNS[design]
    budgets = np.geomspace(FIRST, LAST, rows)
    runs = simulate_isoflop(LAW, budgets, num_sizes=sizes, noise=LOSS_NOISE, seed=seed)
    N, D, L = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "loss"))
    sd = noise * (float(np.ptp(f(N, D, LAW.loss(N, D)))) or 0.1)

    def measured(mean: Array) -> Array:
        z = rng.standard_normal(len(mean))
        if truth == "perplexity":
            return np.asarray(mean * np.exp(0.2 * noise * z))
        noisy = mean + sd * z
        return np.asarray(noisy if truth == "unbounded score" else np.clip(noisy, 0, 1))

    runs["metric"] = measured(f(N, D, L))
    result = fit(runs, metrics=["metric"], num_draws=200, seed=seed)
    found: dict[str, object] = {"refused": bool(result.findings.metrics["metric"].refused)}
    for factor in () if found["refused"] else FACTORS:
        C = factor * LAST
        at = np.array([LAW.n_opt(C)]), np.array([LAW.d_opt(C)])
        try:
            metric = result.predict(C, metric="metric").metric
        except FitError:
            continue
        assert metric is not None
        mean = float(f(*at, LAW.loss(*at))[0])
        loss = LAW.loss(*at) * np.exp(LOSS_NOISE * rng.standard_normal(1))
        run = float(measured(f(*at, loss))[0])
        low, high = metric.interval
        found[f"cover {factor:g}"] = 100 * (low <= mean <= high)
        found[f"run {factor:g}"] = 100 * (
            metric.new_run_interval[0] <= run <= metric.new_run_interval[1]
        )
        found[f"width {factor:g}"] = high - low
        found[f"square {factor:g}"] = (metric.value - mean) ** 2
    return found


def main(sweeps: int = 100, design: str = "5x7", noise: float = 0.03) -> None:
    for truth in TRUTHS:
        found = pd.DataFrame([one_sweep(truth, design, noise, seed) for seed in range(sweeps)])
        row: dict[str, object] = {"truth": truth, "refused": 100 * found["refused"].mean()}
        for name in found.columns[1:]:
            what, factor = name.split()
            value = found[name].median() if what == "width" else found[name].astype(float).mean()
            square = what == "square"
            row[f"rmse {factor}" if square else name] = np.sqrt(value) if square else value
        print(pd.DataFrame([row]).round(4).to_string(index=False), flush=True)


if __name__ == "__main__":
    count, *rest = sys.argv[1:] or ["100"]
    main(int(count), rest[0] if rest else "5x7", float(rest[1]) if rest[1:] else 0.03)
