import numpy as np
import pytest

from flops_fit.errors import ArgumentError
from flops_fit.laws.design.standard_errors import standard_errors
from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.runs.points import Points

# SE(a) over sigma for Epoch's law: (budgets, sizes, decades, half-width in decades) and figure.
FIGURES = [
    ((3, 5, 1, 0.5), 6.3),
    ((5, 7, 2, 0.3), 4.8),
    ((5, 7, 2, 0.5), 2.9),
    ((5, 7, 2, 0.75), 1.9),
    ((5, 7, 2, 1.0), 1.4),
]


@pytest.mark.parametrize(("design", "figure"), FIGURES)
def test_standard_error_of_the_exponent_by_design(design, figure):
    from named_laws import LAWS

    from flops_fit.laws.runs.simulate import simulate_isoflop

    budgets, sizes, decades, width = design
    law = LAWS["chinchilla"][0]
    C = np.geomspace(1e18, 10.0 ** (18 + decades), budgets)
    runs = simulate_isoflop(law, C, num_sizes=sizes, half_width=width)
    found = standard_errors(
        law, runs["num_params"], runs["num_tokens"], noise=0.01, compute_budgets=1e22
    )
    assert found.a / 0.01 == pytest.approx(figure, abs=0.06)


@pytest.mark.slow
def test_standard_errors_are_those_of_simulation(sweep, small):
    runs = sweep()
    found = standard_errors(
        small, runs["num_params"], runs["num_tokens"], noise=0.003, compute_budgets=[1e14, 1e16]
    )
    laws = []
    for seed in range(150):
        drawn = sweep(noise=0.003, seed=seed)
        laws.append(fit_parametric(Points.from_runs(drawn)).law)
    assert np.std([law.a for law in laws]) == pytest.approx(found.a, rel=0.2)
    for k, C in enumerate((1e14, 1e16)):
        spread = np.std([np.log(law.n_opt(C)) for law in laws])
        assert spread == pytest.approx(found.log_num_params[k], rel=0.2)
        assert np.std([law.l_opt(C) for law in laws]) == pytest.approx(found.loss[k], rel=0.2)


def test_four_times_the_runs_halve_the_error(sweep, small):
    runs = sweep(noise=0.0)
    again = {name: np.tile(runs[name], 4) for name in ("num_params", "num_tokens")}
    one = standard_errors(
        small, runs["num_params"], runs["num_tokens"], noise=0.01, compute_budgets=1e15
    )
    four = standard_errors(small, *again.values(), noise=0.01, compute_budgets=1e15)
    assert four.a == pytest.approx(one.a / 2, rel=1e-6)


def test_a_design_of_one_ratio_is_refused(small):
    N = np.geomspace(1e5, 1e7, 10)
    with pytest.raises(ArgumentError, match="cannot separate the law's five parameters"):
        standard_errors(small, N[:4], 20 * N[:4], noise=0.01, compute_budgets=1e15)
    with pytest.raises(ArgumentError, match="positive noise"):
        standard_errors(small, N, 20 * N, noise=0, compute_budgets=1e15)
