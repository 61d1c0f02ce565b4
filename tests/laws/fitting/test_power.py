import numpy as np
import pytest

from flops_fit.laws.fitting.power import fit_power, fit_power_with_floor

C = np.geomspace(1e18, 1e21, 6)


def test_planted_power_law_to_a_millionth():
    law = fit_power(C, 0.1 * C**0.5)
    assert law.exponent == pytest.approx(0.5, rel=1e-6)
    assert law.k == pytest.approx(0.1, rel=1e-6)
    assert law.r_squared == pytest.approx(1)
    np.testing.assert_allclose(law(C), 0.1 * C**0.5, rtol=1e-6)


def test_planted_floor_to_a_millionth():
    law = fit_power_with_floor(C, 1.7 + 900 * C**-0.154)
    assert law.l_inf == pytest.approx(1.7, rel=1e-6)
    assert -law.exponent == pytest.approx(0.154, rel=1e-6)


def test_relative_residuals_are_the_line_through_the_logarithms():
    y = 0.1 * C**0.5 * np.exp(0.01 * np.array([1, -1, 0.5, -0.5, 1, -1]))
    line = np.polyfit(np.log(C), np.log(y), 1)
    assert fit_power(C, y).exponent == pytest.approx(line[0], abs=2e-4)


def test_intervals_cover():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        law = fit_power(C, 0.1 * C**0.5 * np.exp(0.05 * rng.normal(size=6)))
        hits.append(law.exponent_interval[0] <= 0.5 <= law.exponent_interval[1])
    assert 0.92 <= np.mean(hits) <= 0.98


def test_too_few_budgets_are_refused_with_a_reason():
    assert "fewer than two" in fit_power([1e18], [1e9]).refused
    law = fit_power_with_floor(C[:2], [2.0, 1.9])
    assert "fewer than three" in law.refused
    assert np.isnan(law(1e20))


def test_two_budgets_have_no_interval():
    assert np.isnan(fit_power(C[:2], [1e8, 2e8]).exponent_interval).all()


def test_intervals_of_the_law_cover_beyond_its_points():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        sizes = fit_power(C, 0.1 * C**0.5 * np.exp(0.05 * rng.normal(size=6)))
        losses = fit_power_with_floor(C, (1.7 + 900 * C**-0.154) + 0.002 * rng.normal(size=6))
        truth = 0.1 * 1e22**0.5, 1.7 + 900 * 1e22**-0.154
        ends = [law.interval(1e22) for law in (sizes, losses)]
        hits.append([low <= y <= high for (low, high), y in zip(ends, truth, strict=True)])
    assert (np.mean(hits, axis=0) >= 0.91).all()


def test_too_few_points_give_no_interval():
    assert np.isnan(fit_power_with_floor(C[:3], [2.2, 2.1, 2.05]).interval(C)).all()
    assert np.isnan(fit_power([1e18], [1e9]).interval(C)).all()
