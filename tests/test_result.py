import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from planted import BUDGETS, LAW, runs

from flops_fit.display import html
from flops_fit.errors import ArgumentError, FitError, FlopsFitError, TableError
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.predict.tables import TABLE_COLUMNS
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report.tables import as_cells
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(runs(), name="<b>sweep</b>", meta={"data_unit": "tokens"})


def test_planted_law_through_the_front_door():
    found = fit(runs(0.0))
    for name in ("E", "A", "B", "alpha", "beta", "a"):
        assert getattr(found.law, name) == pytest.approx(getattr(LAW, name), rel=1e-6)
    assert found.law.n_opt(1e17) == pytest.approx(LAW.n_opt(1e17), rel=1e-6)
    assert found.power_laws.n_opt.exponent == pytest.approx(LAW.a, abs=1e-4)


def test_table(result):
    table = result.chinchilla_table()
    assert tuple(table.columns) == TABLE_COLUMNS
    expected = [*BUDGETS, 1e15, 1e16, 1e17]
    np.testing.assert_allclose(table["compute_budget"], expected)
    for name in ("num_params", "num_tokens", "loss"):
        assert (table[f"{name}_low"] < table[name]).all()
        assert (table[name] < table[f"{name}_high"]).all()
    spent = 6 * table["num_params"] * table["num_tokens"]
    np.testing.assert_allclose(spent, table["compute_budget"], rtol=1e-6)
    assert len(result.chinchilla_table([1e13])) == 1


def test_the_table_has_the_target_of_a_goal_where_it_is_predicted(result):
    def budgets(target):
        findings = replace(result.findings, rounds=pd.DataFrame({"target": [target]}))
        return replace(result, findings=findings).chinchilla_table()["compute_budget"].tolist()

    default = result.chinchilla_table()["compute_budget"].tolist()
    assert budgets(3e16) == sorted([*default, 3e16])
    assert budgets(1.0000001e16) == budgets(1e19) == default


def test_options_are_checked_all_at_once():
    with pytest.raises(ArgumentError) as caught:
        fit(runs(), method="magic", form="six", num_draws=3, delta=-1.0)
    assert len(caught.value.problems) == 4


def rough(seed=2):
    """A sweep too noisy and too narrow to extrapolate."""
    return simulate_isoflop(LAW, BUDGETS, noise=0.05, half_width=0.4, seed=seed)


def refused_by_divergence():
    table = runs().iloc[:15].copy()
    table.loc[[0, 8], "loss"] = np.nan
    return table


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (rough(), "the exponent of N_opt is known to"),
        (refused_by_divergence(), r"2 \(loss is not finite\)"),
    ],
)
def test_a_refusal_withholds_what_lies_beyond(table, reason):
    found = fit(table)
    largest = found.largest_budget
    assert found.predict(largest).num_params > 0
    with pytest.raises(FitError, match=f"beyond the largest budget.*{reason}") as caught:
        found.predict(largest * 2)
    assert [check.severity for check in caught.value.checks] == ["refuse"]
    with pytest.raises(FitError, match=reason):
        found.chinchilla_table([largest, largest * 10])
    np.testing.assert_allclose(
        found.chinchilla_table()["compute_budget"], found.optima["compute_budget"]
    )
    drawn = found.band([largest, largest * 10])["num_params"]
    assert drawn.notna().tolist() == [True, False]
    assert f"No prediction beyond {largest:.3g} FLOPs" in repr(found)


def test_a_sound_sweep_is_not_refused(result):
    assert "No prediction" not in repr(result)
    assert result.band([1e14, 1e16]).notna().all(axis=None)


def test_parameters_that_the_runs_do_not_determine_are_withheld(result):
    found = fit(rough())
    assert "ill-conditioned" in {check.code for check in found.checks}
    assert found.intervals.loc[["E", "A", "B"]].isna().all(axis=None)
    assert found.intervals.loc[["alpha", "beta", "a"]].notna().all(axis=None)
    assert found.intervals.loc["a", ["low", "high"]].between(0, 1).all()
    assert "L = E + A / N^" in repr(found)
    assert result.intervals.notna().all(axis=None)
    assert "L = E + A / N^" not in repr(result)


@pytest.mark.parametrize("seed", range(3))
def test_losses_that_depend_on_nothing(seed):
    table = runs().assign(loss=3 * np.exp(0.01 * np.random.default_rng(seed).normal(size=35)))
    found = fit(table)
    assert found.law is None
    assert "No parametric law" in repr(found)
    with pytest.raises(FitError, match="do not show that the loss falls with N or D"):
        found.predict(1e13)
    assert found.fits["five"].num_runs == 35


def test_runs_without_noise_are_reported_as_such():
    assert "; the runs have no noise." in repr(fit(runs(0.0)))
    symmetric = ParametricLaw(1.8, 450.0, 1200.0, 0.35, 0.35)
    assert "no noise, alpha = beta fits too" in repr(fit(runs(0.0, law=symmetric)))


def test_save_and_load(result, tmp_path):
    result.save(tmp_path / "kept")
    again = Result.load(tmp_path / "kept")
    for C in (1e13, 1e16):
        assert again.predict(C) == result.predict(C)
    assert again.predict(1e15, inference_tokens=1e9) == result.predict(1e15, inference_tokens=1e9)
    for name in ("runs", "optima", "intervals", "backtest"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(result, name))
    assert again.fits == result.fits
    assert again.checks == result.checks
    assert again.power_laws == result.power_laws
    assert again.meta == result.meta
    assert repr(again) == repr(result)
    assert not list((tmp_path / "kept").glob(".*"))


def test_save_and_load_a_sweep_on_a_measured_cost(tmp_path):
    table = runs()
    f = 6 * table["num_params"] + 900 * table["num_params"] ** 0.5
    table = table.assign(flops=f * table["num_tokens"], size=["s", 1, 2.5, None, 4, 5, 6] * 5)
    found = fit(table.assign(compute_budget=table["flops"]))
    found.save(tmp_path)
    again = Result.load(tmp_path)
    assert found.findings.cost.curve is not None
    assert again.predict(1e16) == found.predict(1e16)
    assert again.runs["size"].tolist() == found.runs["size"].tolist()


def test_save_and_load_curves(tmp_path):
    table = runs().assign(trial_id=[f"t{i}" for i in range(35)])
    curves = table[["trial_id", "num_tokens", "loss"]].assign(ended=True)
    found = fit(table, curves=curves, num_draws=100)
    found.save(tmp_path)
    again = Result.load(tmp_path)
    pd.testing.assert_frame_equal(again.curves, found.curves)
    pd.testing.assert_frame_equal(again.envelope, found.envelope)
    assert len(again.curves) == 35


def test_load_reports_missing_and_unreadable_files(result, tmp_path):
    with pytest.raises(TableError, match="no readable result"):
        Result.load(tmp_path / "nowhere")
    result.save(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 99'))
    with pytest.raises(TableError, match="schema 99"):
        Result.load(tmp_path)
    path.write_text("{")
    with pytest.raises(TableError, match="no readable result"):
        Result.load(tmp_path)


def test_repr_is_short_and_html_is_escaped(result):
    assert len(repr(result).splitlines()) < 15
    assert "N_opt ~ C^0.4" in repr(result)
    html = result._repr_html_()
    assert "<b>sweep" not in html
    assert "&lt;b&gt;sweep" in html


def test_table_as_markdown_and_latex(result):
    lines = result.chinchilla_table().to_markdown(index=False, floatfmt=".4g").splitlines()
    assert len(lines) == 2 + 8
    assert result.to_latex([1e13]).count("\\\\\n") == 2
    with pytest.raises(ArgumentError):
        result.to_latex([-1.0])


def test_few_runs_still_give_a_result():
    found = fit(runs().iloc[:7])
    assert found.law is None
    assert len(found.optima) == 1
    with pytest.raises(FitError, match="no law could be fitted") as caught:
        found.predict(1e15)
    assert any(check.code == "too-few-runs" for check in caught.value.checks)
    assert "too-few" in str([c.code for c in found.checks])
    assert found._repr_html_()


def test_no_finished_run():
    with pytest.raises(FitError, match=r"all 35 runs are left out of the fit: 35 loss is not"):
        fit(runs().assign(loss=np.nan))


def test_unfinished_runs_stay_in_the_table():
    table = runs().assign(state=["failed", "diverged", *["complete"] * 33])
    table.loc[[0, 1], "loss"] = np.nan
    found = fit(table)
    assert found.runs["excluded"].tolist()[:3] == ["failed", "diverged", ""]
    assert len(found.runs) == 35
    assert found.fits["headline"].num_runs == 33


def test_build_size_is_asked_first():
    found = fit(runs(), num_draws=100, build_size=lambda N: round(N**0.5))
    assert found.predict(1e15).size == round(found.predict(1e15).num_params ** 0.5)
    without = fit(runs(), num_draws=100, build_size=lambda N: None)
    assert without.predict(1e15).size is not None


def test_papers_huber_fit(result):
    plain = fit(runs(), delta=1e-3)
    assert plain.fits["headline"].delta == 1e-3
    assert (plain.runs["excluded"] == "").all()
    assert list(plain.findings.spreads[-1].draws) == ["pairs"]
    assert plain.law.a == pytest.approx(result.law.a, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "log"},
        {"method": "linear"},
        {"form": "tied"},
        {"outliers": "iqr"},
        {"curve": "cubic"},
    ],
)
def test_other_ways_to_fit(options):
    found = fit(runs(), **options)
    assert found.law.a == pytest.approx(LAW.a, abs=0.05)
    assert found.predict(1e15).loss == pytest.approx(LAW.l_opt(1e15), rel=0.02)


def test_one_bad_run_moves_the_exponent_little():
    clean = fit(runs())
    for factor in (1.04, 1.5):
        table = runs()
        table.loc[17, "loss"] *= factor
        spoilt = fit(table)
        assert abs(spoilt.law.a - clean.law.a) < 0.01
        assert "outlier" in spoilt.runs.loc[17, "excluded"]


def test_shared_errors_are_noticed():
    shared = simulate_isoflop(LAW, BUDGETS, noise=0.001, shared_noise=0.006, seed=1)
    assert "cluster" in fit(shared).findings.spreads[-1].draws
    assert "cluster" not in fit(runs()).findings.spreads[-1].draws
    assert "cluster" in fit(runs(), shared_errors="size").findings.spreads[-1].draws


# Properties. Tolerances are those of the optimiser, not of the noise.


@pytest.fixture(scope="module")
def base():
    """The fit that the properties compare with, with few bootstrap draws."""
    return fit(runs(), num_draws=100)


QUICK = settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
FUZZ = settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])


@QUICK
@given(st.permutations(range(35)))
def test_order_of_runs_does_not_matter(base, order):
    shuffled = fit(runs().iloc[list(order)], num_draws=100)
    assert shuffled.law.a == pytest.approx(base.law.a, rel=1e-6)
    assert shuffled.law.n_opt(1e16) == pytest.approx(base.law.n_opt(1e16), rel=1e-5)


@QUICK
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_units_of_n_and_d_only_rescale(base, i, j):
    table = runs()
    p, q = 10.0**i, 10.0**j
    table["num_params"] *= p
    table["num_tokens"] *= q
    other = fit(table, num_draws=100)
    assert other.law.alpha == pytest.approx(base.law.alpha, rel=1e-5)
    assert other.law.n_opt(1e16) == pytest.approx(base.law.n_opt(1e16) * p, rel=1e-5)
    assert other.law.d_opt(1e16) == pytest.approx(base.law.d_opt(1e16) * q, rel=1e-5)


@QUICK
@given(st.floats(-3, 3))
def test_scale_of_the_loss_only_rescales(base, i):
    scale = 10.0**i
    table = runs()
    table["loss"] *= scale
    other = fit(table, num_draws=100)
    assert other.law.a == pytest.approx(base.law.a, rel=1e-5)
    assert other.law.E == pytest.approx(base.law.E * scale, rel=1e-4)


@QUICK
@given(st.integers(2, 4))
def test_repeated_runs_change_nothing_but_the_width(times):
    table = pd.concat([runs().assign(seed=s) for s in range(times)])
    base, other = (fit(t, num_draws=100, method="log") for t in (runs(), table))
    assert other.law.a == pytest.approx(base.law.a, rel=1e-6)
    errors = [r.intervals.loc["a", "standard_error"] for r in (base, other)]
    assert errors[1] < errors[0] / np.sqrt(times) * 1.02


@QUICK
@given(st.floats(9, 20))
def test_optimum_spends_the_budget(base, i):
    C = 10.0**i
    law = base.law
    assert law.n_opt(C) * law.d_opt(C) * law.flops_per_param_token == pytest.approx(C, rel=1e-9)


CELL = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(1, 1e12),
    st.integers(-3, 10**12),
    st.sampled_from([None, "", "nan", "abc", "1e6"]),
)


@FUZZ
@given(
    st.lists(
        st.fixed_dictionaries({"N": CELL, "D": CELL, "loss": CELL}, optional={"C": CELL}),
        max_size=14,
    )
)
def test_any_table_gives_a_result_or_our_own_error(rows):
    _try(rows)


def test_the_table_prints_whole_and_its_parts_are_plain(result, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = result.chinchilla_table()
    lines = repr(table).splitlines()
    assert len(lines) == 1 + len(table)
    assert type(table.head(2)) is pd.DataFrame


def test_the_table_is_shown_as_every_other_table_and_holds_numbers(result):
    meta = {**result.meta, "size_param": "d_model", "data_unit": "examples"}
    sized = Result(replace(result.findings, meta=meta, build_size=lambda N: round(N**0.5)))
    table = sized.chinchilla_table()
    cells = as_cells(table, meta)
    assert {"d_model", "D, examples"} <= set(cells.columns)
    page = table._repr_html_()
    assert page == html.frame(cells)
    assert repr(table) == cells.to_string(index=False)
    again = pickle.loads(pickle.dumps(table))
    assert again._repr_html_() == page
    assert table["num_params"].dtype == float
    table["mine"] = 1.0  # a changed table is shown with its own columns
    assert "mine" in repr(table)
    assert "<th>mine</th>" in table._repr_html_()


POSITIVE = st.floats(1e-3, 1e20)


@pytest.mark.slow
@FUZZ
@given(
    st.lists(
        st.fixed_dictionaries(
            {"N": POSITIVE, "D": POSITIVE, "loss": st.floats(-5, 1e6)},
            optional={"C": POSITIVE, "unique_tokens": POSITIVE},
        ),
        min_size=8,
        max_size=30,
    )
)
def test_any_clean_table_gives_a_result_or_our_own_error(rows):
    _try(rows)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.0, -1.0, 1e300, 1e-300, 1e-20])
def test_losses_of_any_size_give_a_result_or_our_own_error(scale):
    _try(runs().assign(loss=runs()["loss"] * scale))
    _try(runs().assign(loss=scale))


def _try(rows):
    try:
        found = fit(rows, num_draws=100)
        repr(found)
        found._repr_html_()
        found.chinchilla_table()
        found.predict(1e15)
    except FlopsFitError:
        pass
