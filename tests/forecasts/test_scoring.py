"""Scores: which runs are a forecast's, and what is said of them."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from planted import LAW, runs

import flops_fit
from flops_fit.errors import ArgumentError, TableError
from flops_fit.fit_table import fit
from flops_fit.forecasts.making import make_forecast
from flops_fit.forecasts.record import identified
from flops_fit.forecasts.scoring import outcomes_in
from flops_fit.laws.model.repetition_law import effective_tokens
from flops_fit.laws.runs.simulate import simulate_isoflop

N, D = 1e5, 1e9


@pytest.fixture(scope="module")
def result():
    return fit(runs(), num_draws=100, name="gpt")


@pytest.fixture(scope="module")
def model(result):
    """The forecast of a model that the runs do not hold."""
    return make_forecast(result.findings, num_params=N, num_tokens=D)


@pytest.fixture(scope="module")
def budget(result):
    """The forecast of a budget ten times the largest one."""
    return make_forecast(result.findings, 1e15)


@pytest.fixture(scope="module")
def extended():
    """The runs, and a row at the budget that was forecast."""
    new = simulate_isoflop(LAW, [1e15], noise=0.003, half_width=0.75, seed=3, num_sizes=6)
    return fit(pd.concat([runs(), new], ignore_index=True), num_draws=100)


def came(*losses, at=(N, D), **columns):
    """A table of runs of one size."""
    rows = [{"N": at[0], "D": at[1], "loss": loss, "seed": i} for i, loss in enumerate(losses)]
    return pd.DataFrame(rows).assign(**columns)


def test_a_run_of_that_size_is_the_outcome(model):
    loss = model.loss * 1.001
    (row,) = flops_fit.score(model, came(loss)).to_dict("records")
    assert row["status"] == "scored"
    assert row["outcome"] == pytest.approx(loss, rel=1e-12)
    assert row["error"] == pytest.approx(1 / 1.001 - 1)
    assert (row["inside_loss"], row["inside_run"]) == (True, True)
    assert (row["loss_low"], row["run_high"]) == (model.loss_interval[0], model.run_interval[1])


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_outcome_may_lie_in_the_interval_of_a_run_alone_or_in_none(model, sign):
    end = int(sign > 0)
    between = (model.loss_interval[end] + model.run_interval[end]) / 2
    beyond = model.run_interval[end] + sign * 0.01
    for loss, inside in ((between, (False, True)), (beyond, (False, False))):
        (row,) = flops_fit.score(model, came(loss)).to_dict("records")
        assert (row["inside_loss"], row["inside_run"]) == inside


@pytest.mark.parametrize("loss", [0.0, -1, -0.5])
def test_a_loss_that_is_not_positive_is_no_outcome_of_one_that_is(model, loss):
    with pytest.raises(ArgumentError, match="loss: expected a positive number"):
        flops_fit.score(model, loss=loss)
    (row,) = flops_fit.score(model, came(loss)).to_dict("records")
    assert (row["status"], row["came_from"]) == ("run, but left out", "its loss is not positive")
    assert flops_fit.score(replace(model, loss=-0.1), came(-0.2))["status"][0] == "scored"


@pytest.mark.parametrize(
    ("table", "doubt"),
    [
        (pd.DataFrame({"N": [N], "D": D, "train_loss": 2.4}), "training loss"),
        (
            pd.DataFrame({"N": N, "D": [D / 4, D / 2, D], "loss": [2.6, 2.5, 2.4], "run_id": "a"}),
            "points of training curves",
        ),
        (pd.DataFrame({"N": [N], "D": D, "C": 6e9 * N * D, "loss": 2.4}), "N D"),
    ],
)
def test_doubts_about_the_table_are_told_once(model, table, doubt):
    with pytest.warns(flops_fit.FlopsFitWarning, match="the table of runs: ") as warned:
        scores = flops_fit.score(model, table)
    assert len(warned) == 1
    assert any(doubt in check for check in scores.attrs["checks"])


def test_seeds_are_all_listed_and_their_mean_counts(model):
    table = flops_fit.score(model, came(2.36, 2.38, 2.40))
    assert table["losses"][0] == pytest.approx([2.36, 2.38, 2.40])
    assert table["outcome"][0] == pytest.approx(2.38)
    assert table["came_from"][0] == "mean of 3 runs"


def test_a_setting_that_another_beat_is_left_out(model):
    table = flops_fit.score(
        model, came(2.40, 2.36, learning_rate=[1e-3, 3e-3]).drop(columns="seed")
    )
    assert table["losses"][0] == pytest.approx([2.36])


@pytest.mark.parametrize("at", [(1.04 * N, D), (N, 0.96 * D), (1.03 * N, 1.03 * D)])
def test_a_run_of_nearly_that_size_is_moved_along_the_law(result, model, at):
    """On the law, it is on the law there too."""
    table = flops_fit.score(model, came(float(result.law.loss(*at)), at=at))
    assert table["outcome"][0] == pytest.approx(result.law.loss(N, D), rel=1e-9)


def test_a_bent_law_is_followed_as_it_bends(model):
    law, at = replace(LAW, gamma=0.7), (1.04 * N, 0.97 * D)
    bent = replace(model, law_vector=tuple(law.vector), loss=float(law.loss(N, D)))
    table = flops_fit.score(bent, came(float(law.loss(*at)), at=at))
    assert table["outcome"][0] == pytest.approx(bent.loss, rel=1e-12)


@pytest.mark.parametrize(
    ("passes", "status"), [(1, "scored"), (1.5, "scored"), (40, "not yet run")]
)
def test_repeated_tokens_count_as_the_law_counts_them(result, model, passes, status):
    """Forty passes with R_D* = 10 are worth about eleven."""
    repeated = replace(model, law_vector=(*result.law.vector, 1 / 10))
    worth = float(effective_tokens(D, D / passes, 10))
    table = came(float(result.law.loss(N, worth))).assign(unique_tokens=D / passes)
    (row,) = flops_fit.score(repeated, table).to_dict("records")
    assert row["status"] == status
    if status == "scored":
        assert row["outcome"] == pytest.approx(result.law.loss(N, D), rel=1e-9)


@pytest.mark.parametrize(
    "columns",
    [
        {"dataset": ["c4", "code"]},
        {"optimizer": ["adam", "muon"], "lr": [1e-3, 2e-2]},
        {"vocab_size": [32000, 50000]},
        {"context_length": [1024, 2048]},
        {"mixture": ["web", None]},
    ],
)
def test_runs_of_several_conditions_have_no_mean(model, columns):
    (row,) = flops_fit.score(model, came(2.36, 2.9, **columns)).to_dict("records")
    assert row["status"] == "ambiguous"
    assert row["came_from"].startswith(next(iter(columns)))
    assert math.isnan(row["error"])


@pytest.mark.parametrize(
    "columns",
    [
        {"run_name": ["a", "b"]},
        {"host": ["x", "y"]},
        {"grad_norm": [0.1, 0.2]},
        {"wandb_url": ["u/1", "u/2"]},
        {"data_seed": [1, 2], "checkpoint": ["a", "b"], "num_gpus": [8, 16]},
        {"dataset": ["c4", "c4"]},
    ],
)
def test_what_a_run_itself_decides_is_no_condition(model, columns):
    table = flops_fit.score(model, came(2.36, 2.38, **columns))
    assert table["came_from"][0] == "mean of 2 runs"


def test_other_conditions_at_other_sizes_do_not_matter(model):
    other = came(3.0, at=(10 * N, D), dataset="code")
    table = flops_fit.score(model, pd.concat([came(2.36, dataset="c4"), other]))
    assert table["losses"][0] == pytest.approx([2.36])


@pytest.fixture(scope="module")
def by_dataset():
    """Results of two data sets, the second with a higher loss."""
    other = runs().assign(dataset="code", loss=lambda frame: frame["loss"] + 0.5)
    table = pd.concat([runs().assign(dataset="c4"), other], ignore_index=True)
    return fit(table, by="dataset", num_draws=100)


def test_a_forecast_of_a_group_is_of_its_runs(by_dataset):
    made = [make_forecast(by_dataset[of].findings, num_params=N, num_tokens=D) for of in by_dataset]
    assert [forecast.by for forecast in made] == [(("dataset", "c4"),), (("dataset", "code"),)]
    table = came(2.36, 2.9, Dataset=["c4", "code"], lr=[1e-3, 2e-3])
    scores = flops_fit.score(made, table).set_index("loss").sort_index()
    assert [losses[0] for losses in scores["losses"]] == pytest.approx([2.36, 2.9])
    (row,) = flops_fit.score(made[0], came(2.36, 2.38)).to_dict("records")
    assert row["came_from"] == "mean of 2 runs"


def test_results_by_group_are_scored_each_with_its_own(by_dataset):
    run = runs().iloc[-1]
    for of in by_dataset:
        forecast = make_forecast(by_dataset[of].findings, num_params=N, num_tokens=D)
        moved = replace(forecast, num_params=float(run["num_params"]))
        moved = replace(moved, num_tokens=float(run["num_tokens"]))
        (row,) = flops_fit.score(moved, by_dataset).to_dict("records")
        assert row["outcome"] == pytest.approx(run["loss"] + 0.5 * (of == "code"))
        (row,) = flops_fit.score(replace(moved, by=()), by_dataset).to_dict("records")
        assert row["status"] == "ambiguous"


@pytest.mark.parametrize("values", [[1, 2], [1.0, None], ["1", "x"]])
def test_a_group_is_found_as_text_and_as_number(model, values):
    forecast = replace(model, by=(("kind", "1"),))
    table = flops_fit.score(forecast, came(2.36, 2.9, kind=values))
    assert table["losses"][0] == pytest.approx([2.36])


@pytest.mark.parametrize(
    "columns", [{"unique_tokens": D / 100}, {"epochs": 100}, {"unique_tokens": D / 100, "x": 1.0}]
)
def test_repeated_data_is_other_data_for_a_law_of_new_data(model, columns):
    (row,) = flops_fit.score(model, came(2.4, **columns)).to_dict("records")
    assert (row["status"], row["came_from"]) == ("other data", "100 passes")
    assert math.isnan(row["error"])
    both = pd.concat([came(2.36, epochs=1), came(2.4, **columns)])
    assert flops_fit.score(model, both)["losses"][0] == pytest.approx([2.36])


def test_a_law_of_runs_with_as_many_passes_counts_them(model):
    table = flops_fit.score(replace(model, passes=100.0), came(2.4, epochs=100))
    assert table["status"][0] == "scored"


@pytest.mark.parametrize("column", ["run_name", "trial_id", "run id"])
def test_only_the_last_row_of_a_run_counts(model, column):
    table = pd.DataFrame({"N": N, "D": [0.97 * D, D], "loss": [2.5, 2.36]})
    (row,) = flops_fit.score(model, table.assign(**{column: "a"})).to_dict("records")
    assert row["losses"] == pytest.approx([2.36])
    longer = pd.DataFrame({"N": N, "D": [D, 2 * D], "loss": [2.6, 2.3], column: "a"})
    (row,) = flops_fit.score(model, longer).to_dict("records")
    assert (row["status"], row["came_from"]) == (
        "run, but left out",
        "a point in the middle of its run",
    )


@pytest.mark.parametrize("at", [(1.06 * N, D), (N, 1.06 * D), (2 * N, D / 2)])
def test_a_run_of_another_size_is_none(model, at):
    table = flops_fit.score(model, came(2.4, at=at))
    assert table["status"][0] == "not yet run"
    assert math.isnan(table["outcome"][0])
    assert table["inside_run"][0] is None


def test_a_run_that_the_screen_calls_an_outlier_came_out_so_all_the_same(model):
    bad = came(1.2 * model.loss).assign(C=6 * N * D)
    good = runs()[["num_params", "num_tokens", "compute_budget", "loss"]]
    bad = bad.rename(columns={"N": "num_params", "D": "num_tokens", "C": "compute_budget"})
    both = pd.concat([good, bad.drop(columns="seed")], ignore_index=True)
    result = fit(both, num_draws=100)
    assert result.runs["excluded"].iloc[-1].startswith("outlier")
    (row,) = flops_fit.score(model, result).to_dict("records")
    assert row["outcome"] == pytest.approx(1.2 * model.loss)
    assert row["inside_run"] is False


def test_a_run_that_was_left_out_is_told_with_the_reason(model):
    table = flops_fit.score(model, came(2.4, 2.41, excluded="saw its data over 16 times"))
    assert table["status"][0] == "run, but left out"
    assert table["came_from"][0] == "saw its data over 16 times"
    assert math.isnan(table["error"][0])
    assert table.attrs["summary"] == "Forecasts: 1 run, but left out"


@pytest.mark.parametrize("state", ["failed", "running"])
def test_runs_that_have_not_finished_do_not_count(model, state):
    table = flops_fit.score(model, came(2.4, 2.41, state=[state, state]))
    assert table["status"][0] == "run, but left out"
    assert state in table["came_from"][0]


def test_a_budget_is_compared_with_its_own_curve(budget, extended):
    (row,) = flops_fit.score(budget, extended).to_dict("records")
    best = extended.optima.iloc[-1]
    assert row["came_from"] == "minimum of the budget's curve"
    assert (row["outcome"], row["best_num_params"]) == (best["loss"], best["num_params"])
    low, high = budget.num_params_interval
    assert row["inside_num_params"] is bool(low <= best["num_params"] <= high)
    assert abs(row["error"]) < 0.01


def test_a_budget_whose_curve_is_refused_is_told_with_the_reason(budget, extended):
    optima = extended.optima.assign(refused="too shallow")
    (row,) = outcomes_in([budget], replace(extended.findings, optima=optima)).to_dict("records")
    assert row["status"] == "run, but left out"
    assert row["came_from"] == "no optimum, too shallow"


def test_a_model_is_not_compared_with_a_budgets_curve(result, extended):
    model = make_forecast(result.findings, num_params=3e5, num_tokens=1e15 / 6 / 3e5)
    assert not flops_fit.score(model, extended)["status"].eq("scored").any()


def test_forecasts_of_known_runs_are_marked_and_not_counted(result):
    run = result.findings.fitted_runs.iloc[-1]
    N, D = float(run["num_params"]), float(run["num_tokens"])
    known = make_forecast(result.findings, num_params=N, num_tokens=D)
    table = flops_fit.score(known, result)
    assert table["status"][0] == "the run was already in the data"
    assert math.isnan(table["error"][0])
    assert table.attrs["summary"] == "Forecasts: 1 of runs already in the data"


def test_forecasts_of_another_setting_are_not_counted(result, extended, budget):
    other = identified(replace(budget, setting="before"))
    findings = replace(extended.findings, meta={"setting": "now"})
    assert outcomes_in([other], findings)["status"][0] == "of another model, data or recipe"
    same = replace(extended.findings, meta={"setting": "before"})
    assert outcomes_in([other], same)["status"][0] == "scored"


def test_a_loss_alone_scores_a_single_forecast(model, budget):
    table = flops_fit.score(model, loss=2.4)
    assert table["outcome"][0] == 2.4
    with pytest.raises(ArgumentError, match="expected a single forecast, got 2"):
        flops_fit.score([model, budget], loss=2.4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give runs, or loss"),
        ({"runs": [{"N": 1, "D": 1, "loss": 1}], "loss": 2.4}, "give runs, or loss"),
        ({"loss": "low"}, "loss: expected a number, got 'low'"),
        ({"loss": math.nan}, "loss: expected a number"),
    ],
)
def test_what_came_must_be_said_once(model, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        flops_fit.score(model, **arguments)


def test_a_table_that_cannot_be_read_is_an_error(model):
    with pytest.raises(TableError):
        flops_fit.score(model, pd.DataFrame({"loss": [1.0]}))


def test_files_and_folders_are_scored_in_the_order_of_their_dates(result, tmp_path):
    made = [result.forecast(C, path=tmp_path) for C in (1e15, 1e16)]
    table = flops_fit.score(tmp_path, came(2.4))
    assert table["id"].tolist() == [each.id for each in made]
    assert table.attrs["summary"] == "Forecasts: 2 not yet run"
    table.to_csv(tmp_path / "scores.csv")
    table.to_json(tmp_path / "scores.json")
