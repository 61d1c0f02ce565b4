"""The slider's grids have the numbers of `Result.predict`."""

import numpy as np
import pytest
from named_laws import bent
from planted import BUDGETS, LAW, runs
from recipes import with_pilot

from flops_fit.errors import FitError
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report import slider_data
from flops_fit.result import fit


@pytest.fixture(scope="module", params=["straight", "bent"])
def result(request):
    if request.param == "straight":
        return fit(runs())
    bent_runs = simulate_isoflop(bent(LAW), BUDGETS, noise=0.002, seed=3)
    found = fit(bent_runs, num_draws=200)
    assert found.law.gamma < 0.8
    return found


@pytest.fixture(scope="module")
def grids(result):
    return slider_data.slider_grids(result.findings)


@pytest.mark.parametrize("factor", [0.1, 1, 10, 1000])
def test_stops_at_every_tenfold_of_the_largest_budget(result, grids, factor):
    C = factor * result.largest_budget
    i = int(np.argmin(np.abs(np.array(grids["c"]) - np.log(C))))
    assert grids["c"][i] == pytest.approx(np.log(C), abs=1e-8)
    expected, free = result.predict(C), grids["free"]
    assert np.exp(free["n"][i]) == pytest.approx(expected.num_params, rel=1e-6)
    assert np.exp(free["d_high"][i]) == pytest.approx(expected.num_tokens_interval[1], rel=1e-6)
    assert free["l_low"][i] == pytest.approx(expected.loss_interval[0], rel=1e-6)


def test_ratios_and_caps_lie_on_coarser_grids(result, grids):
    C = np.exp(grids["coarse"][8])
    ratio = np.exp(grids["ratios"]["at"][5])
    expected = result.predict(C, tokens_per_param=ratio)
    assert grids["ratios"]["rows"][5]["l"][8] == pytest.approx(expected.loss, rel=1e-6)
    unique = result.predict(C).num_tokens / np.exp(grids["caps"]["at"][7])
    expected = result.predict(C, unique_tokens=unique)
    row = grids["caps"]["rows"][7]
    assert np.exp(row["n"][8]) == pytest.approx(expected.num_params, rel=1e-5)
    assert row["l_high"][8] == pytest.approx(expected.loss_interval[1], rel=1e-5)


def test_the_power_laws_alone_have_no_intervals_and_no_terms():
    table = runs()
    table.loc[3, "loss"] = 1e9
    grids = slider_data.slider_grids(fit(table).findings)
    assert set(grids["free"]) == {"n", "d", "l"}
    assert "ratios" not in grids
    assert max(grids["c"]) == pytest.approx(np.log(1000 * grids["largest"]))


def test_no_law_no_grid():
    with pytest.raises(FitError, match="no law could be fitted"):
        slider_data.slider_grids(fit(runs().iloc[:7]).findings)


@pytest.mark.slow
def test_sizes_beyond_those_trained_are_built(result):
    asked = []

    def build(N):
        asked.append(N)
        return 16 * round(N**0.5 / 16)

    table = runs()
    sizes = 16 * (table["num_params"] ** 0.5 / 16).round().astype(int)
    sized = fit(table.assign(size=sizes), build_size=build)
    grids = slider_data.slider_grids(sized.findings)["sizes"]
    assert grids["step"] == 16
    beyond = asked[:8]
    assert grids["is"][-1] == sized.predict(1000 * sized.largest_budget).size
    assert min(beyond) > table["num_params"].max()
    assert "sizes" not in slider_data.slider_grids(fit(table.assign(size=None)).findings)


@pytest.mark.slow
def test_the_recipe_is_in_the_grids_where_there_is_one(grids):
    result = fit(with_pilot(), meta={"tokens_per_example": "16"}, num_draws=100)
    grid = slider_data.slider_grids(result.findings)
    assert "r" not in grids["free"]
    assert "recipe" not in grids
    assert grid["recipe"]["largest"] == result.recipe_law.largest_budget
    for row in (grid["free"], *grid["ratios"]["rows"], *grid["caps"]["rows"]):
        assert {"r", "r_low", "r_high", "b", "b_low", "b_high"} <= set(row)
    at = grid["c"].index(pytest.approx(np.log(grid["largest"])))
    prediction = result.predict(grid["largest"])
    assert np.exp(grid["free"]["r"][at]) == pytest.approx(prediction.learning_rate)
    assert np.exp(grid["free"]["b"][at]) == pytest.approx(prediction.batch_size)
