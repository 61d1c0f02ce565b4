"""Every check of the runs has a sweep that raises it and one that does not."""

import numpy as np
import pandas as pd
import pytest
from checked import severities
from recipes import with_pilot

from flops_fit.laws.checks import of_runs
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit


def test_a_sound_sweep_raises_nothing(sound):
    assert severities(sound) == {}


@pytest.mark.parametrize(
    ("code", "design"),
    [
        ("few-runs", {"budgets": 3, "sizes": 5}),
        ("few-budgets", {"budgets": 3}),
        ("few-sizes", {"sizes": 4}),
    ],
)
def test_small_designs(sweep, sound, code, design):
    assert severities(sweep(noise=0.002, **design))[code] == "warn"
    assert code not in severities(sound)


def test_short_span(small, sound):
    runs = simulate_isoflop(small, np.geomspace(1e12, 1e13, 5), noise=0.001)
    assert severities(runs)["short-span"] == "warn"
    assert "short-span" not in severities(sound)


def test_runs_excluded(sound):
    one = sound.assign(state=["failed", *["complete"] * 34])
    assert severities(one)["runs-excluded"] == "warn"
    few = sound.iloc[:15].copy()
    few.loc[[0, 8], "loss"] = np.nan
    assert severities(few)["runs-excluded"] == "refuse"
    assert "runs-excluded" not in severities(sound)


def test_runs_that_find_or_check_a_recipe_raise_no_check():
    table = with_pilot()
    pilot = table.index[table["role"] == "pilot"]
    table["state"] = np.where(table.index.isin(pilot[:5]), "diverged", "complete")
    table["steps"] = np.where(table["role"] == "pilot", 100, 1000)
    assert severities(table) == severities(table[table["role"] == "sweep"])


def test_many_outliers(sound):
    bad = sound.copy()
    bad.loc[[2, 9, 17, 25], "loss"] *= 1.1
    assert severities(bad)["many-outliers"] == "warn"
    assert "many-outliers" not in severities(sound)


@pytest.mark.slow
def test_many_epochs(sound):
    assert severities(sound.assign(epochs=2.0)) == {}
    assert severities(sound.assign(epochs=5.0))["many-epochs"] == "warn"
    some = sound.assign(epochs=np.where(sound.index == 4, 20.0, 1.0))
    assert severities(some)["many-epochs"] == "refuse"
    assert "20 times; runs of over 16 are left out of the fits." in repr(fit(some).checks)
    assert fit(some).runs.loc[4, "excluded"] == "saw its data over 16 times"


def test_long_warmup(sound):
    assert severities(sound.assign(warmup_fraction=0.05)) == {}
    assert severities(sound.assign(warmup_fraction=0.2))["long-warmup"] == "warn"
    some = sound.assign(warmup_fraction=np.where(sound.index == 4, 0.4, 0.02))
    assert severities(some)["long-warmup"] == "refuse"
    assert "40 % of its steps on warm-up; runs of over 25 % are left" in repr(fit(some).checks)
    assert "warm-up" in fit(some).runs.loc[4, "excluded"]


def test_embedding_share(sound):
    assert severities(sound.assign(embedding_params=0.1 * sound["num_params"])) == {}
    assert "embedding-share" in severities(sound.assign(embedding_params=0.3 * sound["num_params"]))


def test_few_steps(sound):
    assert severities(sound.assign(steps=500)) == {}
    assert severities(sound.assign(steps=150))["few-steps"] == "warn"
    some = sound.assign(steps=np.where(sound.index == 3, 12, 500))
    some.loc[3, "excluded"] = "diverged"  # an excluded run was short, too
    (check,) = [check for check in of_runs.check_steps(some)]
    assert check.message == f"1 of {len(sound)} runs have fewer than 200 steps, the shortest 12."


def test_rounded_tokens(sound):
    assert severities(sound.assign(flops=sound["flops"] * 1.005)) == {}
    off = np.where(sound.index == 3, 1.02, 1.0)
    runs = sound.assign(flops=sound["flops"] * off, num_tokens=sound["num_tokens"] * off)
    assert severities(runs)["rounded-tokens"] == "warn"


def test_learning_rate_at_the_edge(sound):
    place = sound.index == 10
    tried = [(0.5, 1.02), (1.0, 1.0), (2.0, 1.03)]

    def ladder(losses):
        rows = [sound.assign(lr_multiplier=1.0)[~place]]
        for multiplier, factor in losses:
            row = sound[place].assign(lr_multiplier=multiplier)
            rows.append(row.assign(loss=row["loss"] * factor))
        return pd.concat(rows, ignore_index=True)

    inside, edge = ladder(tried), ladder([(0.5, 1.02), (1.0, 1.01), (2.0, 1.0)])
    assert "lr-at-edge" not in severities(inside)
    assert severities(edge)["lr-at-edge"] == "warn"
    assert "lr-at-edge" not in severities(ladder([(0.5, 1.02), (1.0, 1.001), (2.0, 1.0)]))
    assert (fit(edge).runs["excluded"] == "tried to check the learning rate").sum() == 2
    assert "runs-excluded" not in severities(inside)


def test_residuals_over_seed_noise(sweep):
    seeds = [sweep(noise=0.002, seed=s).assign(seed=s) for s in range(2)]
    fair = pd.concat(seeds, ignore_index=True)
    assert "residual-over-seed" not in severities(fair)
    bent = fair.assign(loss=fair["loss"] * (1 + 0.01 * np.sin(3 * fair["size"])))
    assert severities(bent)["residual-over-seed"] == "warn"
