import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from flops_fit.laws.model.recipe_law import RecipeLaw

COVARIANCE = np.diag([0.2, 0.1, 0.1, 0.3, 0.15, 0.4, 0.4, 0.3]) ** 2
COVARIANCE[0, 3] = COVARIANCE[3, 0] = 0.03
CENTRE = (1e6, 2e7)


def law(rate=0.01, p=-0.4, q=0.1, batch=16.0, r=0.6, c_r=0.03, c_b=0.02, rho=-0.4):
    vector = (np.log(rate), p, q, np.log(batch), r, np.log(c_r), np.log(c_b), np.arctanh(rho))
    return RecipeLaw(
        vector=tuple(map(float, vector)),
        covariance=tuple(map(tuple, COVARIANCE.tolist())),
        centre=CENTRE,
        tuned=("learning_rate", "batch_size"),
        noise=0.005,
        tokens_per_example=64.0,
        largest=(2e6, 4e7),
        largest_budget=1e14,
    )


LAWS = {
    "a usual one": law(),
    "steep and tilted": law(c_r=0.2, c_b=0.05, rho=-0.8),
    "no tilt": law(rho=0.0),
    "tilted the other way": law(c_r=0.01, c_b=0.1, rho=0.5),
}
each_law = pytest.mark.parametrize("recipe", LAWS.values(), ids=LAWS)


@pytest.mark.parametrize(
    ("N", "D", "rate", "batch"),
    [
        (1e6, 2e7, 0.01, 16.0),
        (2e6, 2e7, 0.01 * 2**-0.4, 16.0),
        (1e6, 8e7, 0.01 * 4**0.1, 16 * 4**0.6),
    ],
)
def test_laws_are_power_laws_about_the_centre(N, D, rate, batch):
    assert law().learning_rate(N, D) == pytest.approx(rate)
    assert law().batch_size(N, D) == pytest.approx(batch)


@pytest.mark.parametrize(
    ("c_b", "examples", "expected"),
    [
        (0.02, 10**6, 1000),  # a thousand steps leave more than the best batch
        (0.02, 4000, 10),  # 9.7 costs half a per cent
        (0.5, 4000, 15),  # so does 14.5
        (1e-6, 4000, 4),  # batches cost nothing: a thousand steps
        (0.5, 2000, 10),  # 200 steps are left in any case
        (0.5, 100, 1),
    ],
)
def test_batches_are_smaller_for_more_steps_where_that_is_cheap(c_b, examples, expected):
    recipe = law(c_b=c_b, rho=0.0, batch=16.0, r=0.0)
    assert recipe.most_batch(1e6, 64.0 * examples) == expected


def test_a_batch_that_was_not_tuned_is_not_made_smaller():
    given = replace(LAWS["a usual one"], tuned=("learning_rate",))
    assert given.most_batch(1e6, 6400.0) == np.inf


def test_laws_take_arrays():
    N, D = np.array([[1e5], [1e6], [1e7]]), np.array([1e7, 1e8])
    recipe = law()
    low, high = recipe.batch_size_interval(N, D)
    rates = recipe.learning_rate(N, D)
    assert rates.shape == low.shape == high.shape == recipe.expected_excess(N, D).shape == (3, 2)
    assert rates[2, 1] == pytest.approx(recipe.learning_rate(1e7, 1e8))


@each_law
def test_nothing_lies_below_the_best_recipe(recipe):
    N, D = 3e6, 5e7
    rate, batch = recipe.learning_rate(N, D), recipe.batch_size(N, D)
    around = np.exp(np.linspace(-2, 2, 9))
    heights = recipe.excess(N, D, rate * around[:, None], batch * around)
    assert recipe.excess(N, D, rate, batch) == pytest.approx(0, abs=1e-15)
    assert np.unravel_index(heights.argmin(), heights.shape) == (4, 4)


@each_law
@pytest.mark.parametrize("times", [0.25, 2, 8])
def test_rate_for_a_given_batch_is_the_best_for_it(recipe, times):
    N, D = 3e6, 5e7
    batch = times * recipe.batch_size(N, D)
    rate = recipe.learning_rate(N, D, batch)
    best = recipe.excess(N, D, rate, batch)
    for other in (rate * 0.97, rate * 1.03):
        assert recipe.excess(N, D, other, batch) > best


def test_a_factor_of_two_costs_the_steepness_of_the_bowl():
    recipe = law(c_r=0.03, c_b=0.02)
    N, D = CENTRE
    assert recipe.excess(N, D, 0.02, 16) == pytest.approx(0.03 * np.log(2) ** 2)
    assert recipe.excess(N, D, 0.01, 8) == pytest.approx(0.02 * np.log(2) ** 2)


@each_law
@pytest.mark.parametrize("reach", [1, 10, 100])
def test_expected_excess_is_the_mean_over_laws_as_likely(recipe, reach):
    N, D = CENTRE[0] * reach, CENTRE[1] * reach
    rng = np.random.default_rng(0)
    errors = rng.multivariate_normal(np.zeros(5), COVARIANCE[:5, :5], 20_000)
    log = np.log(reach)
    x, y = errors[:, :3] @ [1, log, log], errors[:, 3:] @ [1, log]
    rate, batch = recipe.learning_rate(N, D), recipe.batch_size(N, D)
    seen = recipe.excess(N, D, rate * np.exp(x), batch * np.exp(y)).mean()
    assert recipe.expected_excess(N, D) == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize(("reach", "sd"), [(1, 0.2), (np.e, 0.06**0.5), (np.e**2, 0.12**0.5)])
def test_intervals_widen_away_from_the_centre(reach, sd):
    low, high = law().learning_rate_interval(CENTRE[0] * reach, CENTRE[1] * reach)
    assert np.log(high / low) == pytest.approx(2 * 1.959964 * sd)


@pytest.mark.parametrize(
    ("name", "value", "low", "high"),
    [
        ("k", 0.01, 0.01 * np.exp(-0.392), 0.01 * np.exp(0.392)),
        ("p", -0.4, -0.596, -0.204),
        ("m", 16.0, 16 * np.exp(-0.588), 16 * np.exp(0.588)),
        ("c_b", 0.02, 0.02 * np.exp(-0.784), 0.02 * np.exp(0.784)),
        ("rho", -0.4, np.tanh(np.arctanh(-0.4) - 0.588), np.tanh(np.arctanh(-0.4) + 0.588)),
    ],
)
def test_intervals_are_in_natural_units(name, value, low, high):
    row = law().intervals.loc[name]
    assert tuple(row[["value", "low", "high"]]) == pytest.approx((value, low, high), rel=1e-3)


@pytest.mark.parametrize(
    ("tuned", "rows"),
    [
        (("learning_rate",), ["k", "p", "q", "c_r"]),
        (("batch_size",), ["m", "r", "c_b"]),
        (("learning_rate", "batch_size"), ["k", "p", "q", "m", "r", "c_r", "c_b", "rho"]),
    ],
)
def test_intervals_tell_of_what_was_found(tuned, rows):
    assert list(replace(law(), tuned=tuned).intervals.index) == rows


@each_law
def test_law_survives_json(recipe):
    stored = json.loads(json.dumps(asdict(recipe)))
    stored["covariance"] = tuple(map(tuple, stored["covariance"]))
    for name in ("vector", "centre", "tuned", "largest"):
        stored[name] = tuple(stored[name])
    assert RecipeLaw(**stored) == recipe


@pytest.mark.parametrize(
    ("tuned", "said"),
    [
        (("learning_rate",), "learning rate 0.01 (0.00676 to 0.0148) x N^-0.40 D^0.10"),
        (("batch_size",), "batch 16 (8.89 to 28.8) examples x D^0.60"),
        (
            ("learning_rate", "batch_size"),
            "learning rate 0.01 (0.00676 to 0.0148) x N^-0.40 D^0.10, "
            "batch 16 (8.89 to 28.8) examples x D^0.60",
        ),
    ],
)
def test_it_reads_as_a_sentence(tuned, said):
    found = replace(law(), tuned=tuned)
    assert str(found) == f"{said} about N = 1.00M, D = 20.0M"
    assert repr(found) == f"RecipeLaw: {found}"
