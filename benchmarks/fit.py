"""How fast are laws fitted, compared with a grid of SciPy starts at the same optimum?

    python benchmarks/fit.py [runs.csv]

The table has Epoch AI's 240 points of Chinchilla's figure 4 (columns N, D, loss). Without a file,
as many runs are drawn from Chinchilla's law. Prints seconds and ratios. Run it on one core
(OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
from scipy import optimize, special

from flops_fit.fit_table import fit
from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.bootstrap import measure_spread
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.points import Points

LAW = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
GRID = [(0, 5, 10, 15, 20, 25), (0, 5, 10, 15, 20, 25), (-1, -0.5, 0, 0.5, 1)]
EXPONENTS = (0, 0.5, 1, 1.5, 2)
SAMPLED = 90


def draw(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    N, D = np.exp(rng.uniform(np.log([[5e7], [1e9]]), np.log([[2e10], [5e11]]), (2, n)))
    return pd.DataFrame({"N": N, "D": D, "loss": LAW.loss(N, D) * np.exp(rng.normal(0, 0.01, n))})


def timed(work: Callable[[], object], repeat: int = 1) -> tuple[float, object]:
    """The best time of several calls, in seconds, and the value returned."""
    best, out = np.inf, None
    for _ in range(repeat):
        start = time.perf_counter()
        out = work()
        best = min(best, time.perf_counter() - start)
    return best, out


def papers_grid(N: Array, D: Array, loss: Array, every: int) -> tuple[float, float]:
    """Hoffmann's 4,500 starts with SciPy's BFGS: time for all (from every k-th), and the best."""
    x, y, t = np.log(N), np.log(D), np.log(loss)

    def objective(p: Array) -> float:
        terms = np.stack([p[0] - p[3] * x, p[1] - p[4] * y, np.full_like(x, p[2])])
        return float(special.huber(1e-3, special.logsumexp(terms, axis=0) - t).sum())

    starts = list(product(*GRID, EXPONENTS, EXPONENTS))
    some = starts[:: max(1, every)]
    begin = time.perf_counter()
    values = [optimize.minimize(objective, s, method="BFGS").fun for s in some]
    return (time.perf_counter() - begin) * len(starts) / len(some), float(np.nanmin(values))


def main(path: str = "") -> None:
    table = pd.read_csv(path) if path else draw(240)
    N, D, loss = (table[c].to_numpy(float) for c in ("N", "D", "loss"))
    points = Points(N, D, loss)
    found = fit_parametric(points, delta=1e-3)
    seconds, _ = timed(lambda: fit_parametric(points, delta=1e-3), 5)
    print(f"{len(N)} runs, {found.num_starts} starts, Huber 1e-3: {1e3 * seconds:.0f} ms")
    print(f"  objective {found.objective:.6e}, starts that agree {found.agreement:.0%}")
    slow, value = papers_grid(N, D, loss, 4500 // SAMPLED)
    print(f"4,500 scipy BFGS starts (from {SAMPLED}): {slow:.0f} s, best {value:.6e}")
    print(f"  ratio {slow / seconds:.0f}")
    least = fit_parametric(points)
    seconds, _ = timed(lambda: measure_spread(least, points, num_draws=1000), 3)
    print(f"1,000 wild-bootstrap refits: {seconds:.2f} s")
    seconds, _ = timed(lambda: fit(table))
    print(f"flops_fit.fit of {len(N)} runs, everything: {seconds:.2f} s")
    big = draw(100_000)
    seconds, _ = timed(lambda: fit(big))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"flops_fit.fit of 100,000 runs, everything: {seconds:.1f} s, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main(*sys.argv[1:2])
