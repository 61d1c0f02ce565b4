import numpy as np
import pandas as pd
import pytest
from recipes import with_pilot

from flops_fit.laws.runs.exclusions import exclude_bad, of_sweep
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit


def test_a_loss_far_above_its_lowest_has_diverged(sound):
    runs = sound.assign(best_loss=sound["loss"])
    runs.loc[3, "best_loss"] = sound.loc[3, "loss"] / 1.3
    result = fit(runs)
    assert result.runs.loc[3, "excluded"].startswith("diverged")
    assert (result.runs["excluded"] != "").sum() == 1


def test_with_all_learning_rates_tried_the_best_of_each_size_counts(sound):
    def lost(multiplier):
        """Losses with a best rate that is higher for small models than for large ones."""
        off = np.log2(multiplier) + np.sign(np.log(sound["num_params"] / 1e7))
        return sound.assign(lr_multiplier=multiplier, loss=sound["loss"] * (1 + 0.01 * off**2))

    result = fit(pd.concat([lost(m) for m in (0.5, 1.0, 2.0)], ignore_index=True))
    assert (result.runs["excluded"] == "another learning rate did better").sum() == 2 * len(sound)
    assert result.law.alpha == pytest.approx(fit(sound).law.alpha, abs=1e-6)


@pytest.fixture(scope="module")
def piloted():
    return read_runs(with_pilot())[0]


def test_runs_that_find_or_check_a_recipe_are_excluded_with_a_reason(piloted):
    reasons = piloted.groupby("role")["excluded"].unique().map(list).to_dict()
    assert reasons == {
        "sweep": [""],
        "pilot": ["pilot: trained to find the recipe"],
        "check": ["check: trained to check the recipe"],
    }
    assert exclude_bad(piloted)["excluded"].tolist() == piloted["excluded"].tolist()
    assert len(of_sweep(piloted)) == 35


def test_a_pilot_that_diverged_keeps_its_reason():
    table = with_pilot()
    table["state"] = np.where(table.index == 40, "diverged", "complete")
    assert read_runs(table)[0].loc[40, "excluded"] == "diverged"


@pytest.mark.parametrize("better", [0.97, 1.03])
def test_of_a_trial_that_was_trained_again_the_better_one_is_fitted(piloted, better):
    again = piloted.iloc[[34]].assign(learning_rate=1e-3, trial_id="again")
    again["loss"] *= better
    runs = exclude_bad(pd.concat([piloted, again], ignore_index=True))
    first, second = runs.iloc[[34, -1]]["excluded"]
    beaten = "another setting did better at this N and D"
    assert (first, second) == ((beaten, "") if better < 1 else ("", beaten))
    assert (runs["excluded"] == "").sum() == 35


@pytest.mark.parametrize("name", ["batch_size", "learning_rate"])
def test_without_a_pilot_runs_of_one_budget_that_differ_in_their_recipe_stay(sound, name):
    several = pd.concat([sound.assign(**{name: value}) for value in (1.0, 2.0)], ignore_index=True)
    runs = read_runs(several.assign(trial_id=several.index))[0]
    ours = runs.assign(excluded="")
    assert (exclude_bad(ours)["excluded"] == "").all()
