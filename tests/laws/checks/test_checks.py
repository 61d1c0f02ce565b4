"""Every check has a sweep that raises it and one that does not."""

import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.check import Check, graded
from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit


def found(runs, **options):
    """Severity of each check, by code."""
    result = fit(runs, num_draws=100, **options)
    return {check.code: check.severity for check in result.checks}


@pytest.fixture
def sound(sweep):
    return sweep(noise=0.002, seed=5)


def test_a_sound_sweep_raises_nothing(sound):
    assert found(sound) == {}


def test_check_reads_as_a_sentence():
    check = Check("code", "warn", "This is odd.", "Look.")
    assert str(check) == "warn: This is odd. Look."
    assert graded("x", 1.0, 2.0, 3.0, "m", "a") == []
    assert graded("x", float("nan"), 2.0, 3.0, "m", "a") == []
    assert [graded("x", v, 2.0, 3.0, "m", "a")[0].severity for v in (2.5, 3.5)] == [
        "warn",
        "refuse",
    ]


@pytest.mark.parametrize(
    ("code", "design"),
    [
        ("few-runs", {"budgets": 3, "sizes": 5}),
        ("few-budgets", {"budgets": 3}),
        ("few-sizes", {"sizes": 4}),
    ],
)
def test_small_designs(sweep, sound, code, design):
    assert found(sweep(noise=0.002, **design))[code] == "warn"
    assert code not in found(sound)


def test_short_span(small, sound):
    runs = simulate_isoflop(small, np.geomspace(1e12, 1e13, 5), noise=0.001)
    assert found(runs)["short-span"] == "warn"
    assert "short-span" not in found(sound)


def test_too_few_runs_and_one_direction(sweep, small):
    few = sweep(budgets=1)
    assert found(few)["too-few-runs"] == "refuse"
    assert fit(few).law is None
    N = np.geomspace(1e4, 1e7, 12)
    line = pd.DataFrame({"N": N, "D": 20 * N, "loss": small.loss(N, 20 * N)})
    assert found(line)["one-direction"] == "refuse"
    assert "one-direction" not in found(sweep())


def test_runs_excluded(sound):
    one = sound.assign(state=["failed", *["complete"] * 34])
    assert found(one)["runs-excluded"] == "warn"
    few = sound.iloc[:15].copy()
    few.loc[[0, 8], "loss"] = np.nan
    assert found(few)["runs-excluded"] == "refuse"
    assert "runs-excluded" not in found(sound)


def test_diverged_on_the_way(sound):
    runs = sound.assign(best_loss=sound["loss"])
    runs.loc[3, "best_loss"] = sound.loc[3, "loss"] / 1.3
    result = fit(runs)
    assert result.runs.loc[3, "excluded"].startswith("diverged")
    assert (result.runs["excluded"] != "").sum() == 1


def test_many_outliers_and_a_refused_screen(sound):
    bad = sound.copy()
    bad.loc[[2, 9, 17, 25], "loss"] *= 1.1
    assert found(bad)["many-outliers"] == "warn"
    worse = sound.copy()
    worse.loc[[1, 4, 9, 12, 17, 20, 25, 28, 33], "loss"] *= 1.1
    checks = found(worse)
    assert checks["screen-refused"] == "refuse"
    assert fit(worse).fits["headline"].delta == 1e-3
    assert not {"many-outliers", "screen-refused"} & set(found(sound))


def test_many_epochs(sound):
    assert found(sound.assign(epochs=2.0)) == {}
    assert found(sound.assign(epochs=5.0))["many-epochs"] == "warn"
    some = sound.assign(epochs=np.where(sound.index == 4, 20.0, 1.0))
    assert found(some)["many-epochs"] == "refuse"
    assert fit(some).runs.loc[4, "excluded"] == "saw its data over 16 times"


def test_unique_tokens_put_the_repetition_law_to_work(sound, small):
    from flops_fit.laws.model.repetition_law import RepetitionLaw

    U = np.full(len(sound), 3e6)
    loss = RepetitionLaw(small, 15.39, np.inf).loss(sound["num_params"], sound["num_tokens"], U)
    result = fit(sound.assign(unique_tokens=U, loss=loss))
    codes = {check.code: check.severity for check in result.checks}
    assert codes["effective-tokens"] == "note"
    assert codes["many-epochs"] == "warn"
    assert result.law.a == pytest.approx(small.a, abs=1e-6)
    assert "effective-tokens" not in found(sound.assign(unique_tokens=1e15))


def test_long_warmup(sound):
    assert found(sound.assign(warmup_fraction=0.05)) == {}
    assert found(sound.assign(warmup_fraction=0.2))["long-warmup"] == "warn"
    some = sound.assign(warmup_fraction=np.where(sound.index == 4, 0.4, 0.02))
    assert found(some)["long-warmup"] == "refuse"
    assert "warm-up" in fit(some).runs.loc[4, "excluded"]


def test_embedding_share(sound):
    assert found(sound.assign(embedding_params=0.1 * sound["num_params"])) == {}
    assert "embedding-share" in found(sound.assign(embedding_params=0.3 * sound["num_params"]))


def test_few_steps(sound):
    assert found(sound.assign(steps=500)) == {}
    assert found(sound.assign(steps=150))["few-steps"] == "warn"


def test_rounded_tokens(sound):
    assert found(sound.assign(flops=sound["flops"] * 1.005)) == {}
    off = np.where(sound.index == 3, 1.02, 1.0)
    runs = sound.assign(flops=sound["flops"] * off, num_tokens=sound["num_tokens"] * off)
    assert found(runs)["rounded-tokens"] == "warn"


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
    assert "lr-at-edge" not in found(inside)
    assert found(edge)["lr-at-edge"] == "warn"
    assert "lr-at-edge" not in found(ladder([(0.5, 1.02), (1.0, 1.001), (2.0, 1.0)]))
    assert (fit(edge).runs["excluded"] == "tried to check the learning rate").sum() == 2
    assert "runs-excluded" not in found(inside)


def test_the_best_learning_rate_of_each_size_counts_where_all_were_tried_everywhere(sound):
    def lost(multiplier):
        """Small models like a higher rate, large ones a lower."""
        off = np.log2(multiplier) + np.sign(np.log(sound["num_params"] / 1e7))
        return sound.assign(lr_multiplier=multiplier, loss=sound["loss"] * (1 + 0.01 * off**2))

    result = fit(pd.concat([lost(m) for m in (0.5, 1.0, 2.0)], ignore_index=True))
    assert (result.runs["excluded"] == "another learning rate did better").sum() == 2 * len(sound)
    assert result.law.alpha == pytest.approx(fit(sound).law.alpha, abs=1e-6)


def test_residuals_over_seed_noise(sweep):
    seeds = [sweep(noise=0.002, seed=s).assign(seed=s) for s in range(2)]
    fair = pd.concat(seeds, ignore_index=True)
    assert "residual-over-seed" not in found(fair)
    bent = fair.assign(loss=fair["loss"] * (1 + 0.01 * np.sin(3 * fair["size"])))
    assert found(bent)["residual-over-seed"] == "warn"


def test_minimum_at_edge(sweep):
    runs = sweep(noise=0.001, sizes=13)
    best = runs.groupby("compute_budget")["num_params"].transform("median")
    first = runs["compute_budget"] == runs["compute_budget"].min()
    checks = found(runs[~first | (runs["num_params"] > best * 1.5)])
    assert checks["minimum-at-edge"] == "warn"
    assert "isoflop-refused" not in checks
    assert found(runs[runs["num_params"] > best * 1.5])["isoflop-refused"] == "refuse"
    assert not {"minimum-at-edge", "isoflop-refused"} & set(found(runs))


def test_not_convex_and_shallow(sweep, sound):
    assert "not-convex" in found(sweep(noise=0.02, half_width=0.5))
    many = sweep(noise=0.06, half_width=0.5, sizes=121)
    assert fit(many).optima["refused"].str.contains("too flat").any()
    assert found(many)["shallow-row"] == "warn"
    shallow = sweep(noise=0.01, half_width=0.5, seed=1)
    assert found(shallow)["shallow-row"] == "warn"
    assert (fit(shallow).optima["refused"] == "").all()
    assert not {"not-convex", "shallow-row"} & set(found(sound))


def test_few_sizes_in_a_row(sound):
    assert found(sound.drop(index=[0, 1, 5, 6]))["few-sizes-in-row"] == "warn"
    assert "few-sizes-in-row" not in found(sound)


def test_a_fit_that_does_not_converge(sweep, sound):
    runs = sweep(noise=0.05, half_width=0.5, seed=16)
    assert found(runs, delta=1e-9)["not-converged"] == "warn"
    assert "not-converged" not in found(runs, delta=1e-3)
    assert "not-converged" not in found(sound, delta=1e-9)


def test_starts_that_disagree(small, sound):
    alone = simulate_isoflop(small, [1e13], num_sizes=15, half_width=1.0, noise=0.003)
    assert found(alone)["starts-disagree"] == "warn"
    assert "starts-disagree" not in found(sound)


def porian(points, dataset, hparams, decay):
    """One sweep of Porian et al. 2024: short warm-up, all parameters counted, held-out loss."""
    wanted = {
        "dataset": dataset,
        "hparams": hparams,
        "warmup": "short",
        "decay": decay,
        "param_count": "standard",
        "val": "val",
    }
    rows = (points[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return points.loc[rows, ["flops", "N", "D", "loss"]].drop_duplicates()


def test_a_real_sweep_on_which_starts_of_the_papers_fit_disagree(porian_points):
    runs = porian(porian_points, "owt2", "tuned", "const")
    checks = found(runs, delta=1e-3)
    assert checks["starts-disagree"] == "warn"
    assert "not-converged" not in checks
    assert not {"not-converged", "starts-disagree"} & set(found(runs))


def test_a_real_sweep_on_which_approaches_disagree(porian_points):
    checks = found(porian(porian_points, "rw", "base", "kaplan"))
    assert checks["approaches-disagree"] == "warn"
    tuned = porian(porian_points, "rw", "tuned", "const")
    assert "approaches-disagree" not in found(tuned)


def test_no_irreducible_loss(sound, sweep):
    runs = sweep()
    N, D = runs["num_params"], runs["num_tokens"]
    assert found(runs.assign(loss=66 / N**0.35 + 100 / D**0.30))["E-at-zero"] == "warn"
    assert "E-at-zero" not in found(sound)


def test_exponent_at_bound(sound, rough_runs):
    assert found(rough_runs, form="five")["exponent-at-bound"] == "refuse"
    assert "exponent-at-bound" not in found(sound)
    result = fit(rough_runs, form="five")
    assert result.law is None
    assert result.fits["five"].at_bound == ("alpha",)
    assert result.predict(1e11).num_params == pytest.approx(result.power_laws.n_opt(1e11))


def test_ill_conditioned(sweep, sound):
    assert "ill-conditioned" in found(sweep(noise=0.05, half_width=0.4, seed=2))
    assert "ill-conditioned" not in found(sound)


def test_wide_exponent(sweep, sound):
    assert found(sweep(noise=0.03, half_width=0.5))["wide-exponent"] == "warn"
    assert found(sweep(noise=0.05, half_width=0.4, seed=2))["wide-exponent"] == "refuse"
    assert "wide-exponent" not in found(sound)


def test_linear_space(sound):
    shifted = sound.assign(loss=sound["loss"] - 3.0)
    assert found(shifted)["linear-space"] == "note"
    plain, lifted = fit(sound, method="linear"), fit(shifted)
    assert lifted.law.E == pytest.approx(plain.law.E - 3.0, rel=1e-4)
    assert lifted.law.a == pytest.approx(plain.law.a, rel=1e-4)
    assert lifted.predict(1e15).loss == pytest.approx(plain.predict(1e15).loss - 3.0, rel=1e-4)
    (note,) = [c for c in fit(shifted).checks if c.code == "linear-space"]
    assert "for the loss is not positive in" in note.message
    one = sound.assign(loss=sound["loss"].where(sound.index != 3, 0.0))
    assert found(one)["linear-space"] == "warn"
    (asked,) = [c for c in plain.checks if c.code == "linear-space"]
    assert "as asked" in asked.message
    assert "linear-space" not in found(sound)


def test_objectives_disagree(sound):
    biased = sound.copy()
    top = biased["compute_budget"] == biased["compute_budget"].max()
    biased.loc[top & (biased["size"] > 4), "loss"] *= 1.02
    assert "objectives-disagree" in found(biased, outliers="keep")
    assert "objectives-disagree" not in found(sound)


def test_approaches_disagree():
    """Perplexity given for loss leaves each row's minimum where it is, and bends the law."""
    law = ParametricLaw(1.7, 2100.0, 21.0, 0.465, 0.155)
    runs = simulate_isoflop(law, np.geomspace(1e18, 1e21, 13), num_sizes=9, noise=0.0003)
    assert "approaches-disagree" not in found(runs, shared_errors="none")
    perplexity = runs.assign(loss=np.exp(runs["loss"]))
    assert found(perplexity, shared_errors="none")["approaches-disagree"] == "warn"


def test_backtest(sound):
    broken = sound.copy()
    top = broken["compute_budget"] == broken["compute_budget"].max()
    broken.loc[top, "loss"] *= 0.97
    assert found(broken)["backtest"] == "warn"
    assert "backtest" not in found(sound)


def test_optimum_beyond_data(sweep):
    runs = sweep(noise=0.001, sizes=13)
    best = runs.groupby("compute_budget")["num_params"].transform("median")
    top = best.max()
    assert "optimum-beyond-data" in found(runs[runs["num_params"] < top / 1.5])
    assert "optimum-beyond-data" not in found(runs)


def test_sizes_that_share_an_error(sweep, sound):
    shared = sweep(noise=0.001, shared_noise=0.006, seed=1)
    assert found(shared)["shared-errors"] == "note"
    assert "shared-errors" not in found(sound)


def test_cost_of_a_token_that_is_extrapolated(sound):
    f = 6 * sound["num_params"] + 900 * sound["num_params"] ** 0.5
    flops = f * sound["num_tokens"]
    measured = fit(sound.assign(flops=flops, compute_budget=flops))
    codes = {check.code: check.severity for check in measured.predict(1e16).checks}
    assert codes["cost-extrapolated"] == "note"
    assert measured.predict(1e13).checks == ()
    assert fit(sound).predict(1e16).checks == ()


def test_predictions_far_out():
    codes = {
        check.code: check.severity
        for check in check_prediction(200.0, has_interval=True, cost_extrapolated=True)
    }
    assert codes == {"far-extrapolation": "warn", "cost-extrapolated": "note"}
    assert check_prediction(50.0, has_interval=True, cost_extrapolated=False) == []
    grave = check_prediction(2000.0, has_interval=False, cost_extrapolated=False)
    assert grave[0].severity == "refuse"


def test_form_is_said_where_tied(sound):
    assert found(sound, form="tied")["form"] == "note"
    assert "form" not in found(sound)


def test_losses_no_law_could_fit(sound):
    odd = sound.copy()
    odd.loc[3, "loss"] = 1e9
    assert found(odd)["odd-losses"] == "refuse"
    assert "odd-losses" not in found(sound)


def test_a_fit_that_breaks_down_is_a_check(sound):
    assert "fit-failed" not in found(sound)
    result = fit(sound.assign(loss=-1.0))  # nothing to lift the losses by
    assert {check.code: check.severity for check in result.checks}["fit-failed"] == "refuse"
    assert result.law is None
    assert len(result.optima) == 5


def test_assumed_compute_is_said(sound):
    assert found(sound.drop(columns=["flops", "compute_budget"]))["assumed"] == "note"
    assert "assumed" not in found(sound)


def test_training_curves(sound, small):
    runs = sound.assign(trial_id=[f"t{i}" for i in range(35)])
    points = []
    for _, run in runs.iterrows():
        D = run["num_tokens"] * np.linspace(0.3, 1, 6)
        points.append(
            pd.DataFrame(
                {
                    "trial_id": run["trial_id"],
                    "num_tokens": D,
                    "ended": D == D[-1],
                    "loss": small.loss(run["num_params"], D),
                }
            )
        )
    curves = pd.concat(points)
    checks = found(runs, curves=curves, unfinished_curves=True)
    assert checks["unfinished-curves"] == "warn"
    result = fit(runs, curves=curves, unfinished_curves=True)
    assert len(result.findings.envelope) > 4
    assert "unfinished-curves" not in found(runs, curves=curves)
    assert found(runs, curves=curves.assign(ended=False))["no-envelope"] == "warn"
    assert found(sound, curves=curves)["no-envelope"] == "warn"
    assert "no-envelope" not in found(runs, curves=curves)
    assert "no-envelope" not in found(runs)


def test_a_law_with_wide_spread_of_sizes_is_named(sound):
    law = ParametricLaw(1.7, 2100.0, 21.0, 0.465, 0.155)
    runs = simulate_isoflop(law, np.geomspace(1e18, 1e20, 5), half_width=0.75, noise=0.002)
    assert "wide-exponent" not in found(runs)
