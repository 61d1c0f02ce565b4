import numpy as np
import pytest
from scipy import optimize

from flops_fit.laws.model import constrained
from flops_fit.laws.model.cost import FlopsPerToken


def test_fixed_ratio_spends_the_budget(small):
    x, y, loss = constrained.at_ratio(
        small.vector[None], np.array([1e14]), FlopsPerToken(), tokens_per_param=100
    )
    N, D = np.exp(x[0, 0]), np.exp(y[0, 0])
    assert D / N == pytest.approx(100)
    assert 6 * N * D == pytest.approx(1e14)
    assert loss[0, 0] == pytest.approx(small.loss(N, D))


@pytest.mark.parametrize("served", [1e6, 1e8, 3e9])
def test_the_budget_pays_for_inference(small, served):
    C = 1e15
    x, y, loss = constrained.with_inference(
        small.vector[None], np.array([C]), FlopsPerToken(), inference_tokens=served
    )
    N, D = np.exp(x[0, 0]), np.exp(y[0, 0])
    assert 6 * N * D + 2 * N * served == pytest.approx(C)
    left = small.alpha * small.A * N**-small.alpha / (small.beta * small.B * D**-small.beta)
    assert left == pytest.approx(1 + served / (3 * D), rel=1e-6)

    def lost(t):
        tokens = (C - 2 * np.exp(t) * served) / (6 * np.exp(t))
        return small.loss(np.exp(t), tokens) if tokens > 0 else 1e9

    found = optimize.minimize_scalar(
        lost, bounds=(5, np.log(C / (2 * served))), method="bounded", options={"xatol": 1e-10}
    )
    assert loss[0, 0] == pytest.approx(found.fun, rel=1e-9)


def test_no_inference_is_the_plain_optimum(small):
    x, _, _ = constrained.with_inference(
        small.vector[None], np.array([1e15]), FlopsPerToken(), inference_tokens=1e-6
    )
    assert np.exp(x[0, 0]) == pytest.approx(small.n_opt(1e15), rel=1e-6)
