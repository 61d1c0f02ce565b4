import numpy as np
import pandas as pd
import pytest
from tables import isoflop_table

from flops_fit.errors import TableError
from flops_fit.laws.runs.columns import recognise
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit

TABLE = isoflop_table()
COLUMNS = ["num_params", "num_tokens", "flops", "loss"]


@pytest.mark.parametrize(
    "names",
    [
        ("num_params", "tokens", "flops_budget", "loss"),
        ("params", "tokens", "flops", "loss"),
        ("N", "D", "C", "L"),
        ("num_params", "num_tokens", "compute", "val_loss"),
        ("Model Size", "Training Tokens", "Training FLOP", "loss"),
        ("n_params", "n-tokens", "FLOPs", "Eval Loss"),
        ("n_parameters", "tokens_seen", "total_flops", "validation/loss"),
        ("model_params", "dataset size", "train_flops", "final_val_loss"),
        ("n_params", "train_tokens", "compute", "final_loss"),
        ("non_embedding_params", "D (tokens)", "train_flops", "val/loss"),
        ("config.n_params", "summary.tokens_seen", "config.flops", "summary.eval/loss"),
        ("params.N", "params.train_tokens", "params.training_compute", "metrics.val_loss"),
        ("config/N", "config/D", "config/C", "loss"),
        ("params_n_params", "user_attrs_tokens", "user_attrs_flops", "user_attrs_val_loss"),
        ("Parameters", "Training Tokens", "Training compute (FLOP)", "Validation Loss"),
        ("N", "D", "C", "eval/c4_loss"),
        ("N", "D", "C", "evalLoss"),
        # What Marin and OLMo log to W&B (marin issue 646).
        ("parameter_count", "throughput/total_tokens", "flops", "eval/paloma/c4_en/bpb"),
        # The table of nanochat's sweeps (nanochat pull request 580).
        ("params_total", "tokens_trained", "flops_budget", "val_bpb"),
    ],
)
def test_names_of_the_field(names):
    frame = TABLE.set_axis(list(names), axis=1)
    table, checks = read_runs(frame)
    assert table[COLUMNS].to_numpy().tolist() == TABLE.to_numpy().tolist()
    assert table["compute_budget"].tolist() == TABLE["C"].tolist()
    assert checks == []


@pytest.mark.parametrize(
    ("names", "scales"),
    [
        (("N (M)", "D (B)", "C"), (1e6, 1e9, 1)),
        (("params_millions", "tokens_B", "compute (EFLOPs)"), (1e6, 1e9, 1e18)),
        (("N", "D", "throughput/total_gflops"), (1, 1, 1e9)),
        (("Params in millions", "tokens [1e9]", "PF-days"), (1e6, 1e9, 8.64e19)),
    ],
)
def test_units_in_names_are_applied_and_stated(names, scales):
    given = TABLE[["N", "D", "C"]].to_numpy() / np.array(scales)
    table, checks = read_runs(pd.DataFrame(given, columns=list(names)).assign(loss=TABLE["loss"]))
    assert table[COLUMNS[:3]].to_numpy() == pytest.approx(TABLE[["N", "D", "C"]].to_numpy())
    assert len(checks) == sum(scale != 1 for scale in scales)
    assert all("its unit" in check.message for check in checks)


def test_numbers_that_are_converted_already_are_not_scaled_again():
    table, _ = read_runs(TABLE.rename(columns={"N": "params_M"}))
    assert table["num_params"].tolist() == TABLE["N"].tolist()


@pytest.mark.parametrize(
    ("extra", "severity", "taken"),
    [
        ({"val_loss": 0.9}, "warn", 0.9),
        ({"train_loss": 0.9, "eval_loss": 1.01}, "warn", 1.01),
        ({"train_loss": 0.9}, "note", 1.0),
        ({"val_loss": 1.0}, "note", 1.0),
    ],
)
def test_held_out_loss_is_taken_before_training_loss(extra, severity, taken):
    frame = TABLE.assign(**{name: TABLE["loss"] * factor for name, factor in extra.items()})
    table, (check, *_) = read_runs(frame)
    assert table["loss"].to_numpy() == pytest.approx(TABLE["loss"].to_numpy() * taken)
    assert (check.code, check.severity) == ("columns", severity)
    assert "left out: 'train_loss'" in check.message or "'loss'" in check.message


def test_an_empty_column_is_no_candidate():
    table, checks = read_runs(TABLE.assign(val_loss=np.nan))
    assert table["loss"].tolist() == TABLE["loss"].tolist()
    assert checks == []


def test_columns_that_were_left_keep_their_values():
    table, _ = read_runs(TABLE.assign(val_loss=1.0 + TABLE["loss"]))
    assert table["loss_given"].tolist() == TABLE["loss"].tolist()
    table, _ = read_runs(TABLE.assign(val_loss=1.0 + TABLE["loss"], loss_given=7))
    assert table["loss_given_"].tolist() == TABLE["loss"].tolist()


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        ({"params": 1.3}, "warn", "num_params was read from 'params'; left out: 'N'"),
        ({"non_embedding_params": 0.8}, "note", "'N'; left out: 'non_embedding_params'"),
        ({"n": 0.0}, "note", "'N'; left out: 'n'"),
    ],
)
def test_several_candidates_for_n(change, severity, message):
    frame = TABLE.assign(**{name: TABLE["N"] * factor for name, factor in change.items()})
    _, (check,) = read_runs(frame)
    assert check.severity == severity
    assert message in check.message


@pytest.mark.parametrize(
    ("columns", "severity", "taken", "left", "seconds"),
    [
        ({"seconds": 60, "train_runtime": 45}, "warn", "train_runtime", "seconds", 45),
        ({"_runtime": 7200, "hours": 1}, "warn", "_runtime", "hours", 7200),
        ({"_runtime": 7200, "hours": 2}, "note", "_runtime", "hours", 7200),
        ({"hours": 2, "gpu_hours": 16}, "note", "hours", "gpu_hours", 7200),
        ({"duration": 45, "wall_time_s": 60}, "note", "wall_time_s", "duration", 60),
    ],
)
def test_several_columns_of_time(columns, severity, taken, left, seconds):
    table, checks = read_runs(TABLE.assign(**columns))
    (check,) = (each for each in checks if "left out" in each.message)
    assert (table["wall_time_s"] == seconds).all()
    assert (check.code, check.severity) == ("columns", severity)
    assert check.message == f"wall_time_s was read from '{taken}'; left out: '{left}'."


def test_only_a_training_loss_and_only_a_perplexity():
    _, checks = read_runs(TABLE.rename(columns={"loss": "train_loss"}))
    assert [(check.code, check.severity) for check in checks] == [("training-loss", "warn")]
    frame = TABLE.assign(ppl=np.exp(TABLE["loss"])).drop(columns="loss")
    table, checks = read_runs(frame)
    assert table["loss"].to_numpy() == pytest.approx(TABLE["loss"].to_numpy())
    assert "ln of 'ppl'" in checks[0].message


def test_text_is_a_condition_and_not_a_number_of_tokens():
    table, checks = read_runs(TABLE.assign(data="c4"))
    assert table["num_tokens"].tolist() == TABLE["D"].tolist()
    assert checks == []
    table, checks = read_runs(TABLE.assign(data="c4").drop(columns="D"))
    assert table["num_tokens"].to_numpy() == pytest.approx(TABLE["D"].to_numpy(), rel=1e-6)
    assert "'data' holds 'c4' and was not read as num_tokens" in checks[0].message
    assert "D = C / (6 N) was assumed" in checks[1].message
    with pytest.raises(TableError, match="'data' holds 'c4' and was not read as num_tokens"):
        read_runs(TABLE.assign(data="c4")[["N", "data", "loss"]])


def test_sizes_in_a_column_of_names():
    named = [f"{N / 1e6:.6f}M" for N in TABLE["N"]]
    table, _ = read_runs(TABLE.drop(columns="N").assign(model_size=named))
    assert table["num_params"].to_numpy() == pytest.approx(TABLE["N"].to_numpy())
    table, _ = read_runs(TABLE.drop(columns="N").assign(model=named))
    assert table["num_params"].to_numpy() == pytest.approx(TABLE["N"].to_numpy())
    with pytest.raises(TableError, match="num_params not found"):
        read_runs(TABLE.drop(columns="N").assign(model=512))


def test_compute_that_is_not_recognised_is_said():
    _, checks = read_runs(TABLE.rename(columns={"C": "my_flop_budget"}))
    assert "'my_flop_budget' looks like compute" in checks[0].message
    assert checks[0].severity == "warn"
    _, checks = read_runs(TABLE.assign(flops_per_second=1e15))
    assert checks == []


def test_columns_twice(tmp_path):
    both = pd.concat([TABLE, TABLE[["loss"]] * 1.1], axis=1)
    both.to_csv(tmp_path / "runs.csv", index=False)
    for source in (both, tmp_path / "runs.csv"):
        with pytest.raises(TableError, match="occur twice: loss, with different values"):
            read_runs(source)
    same = pd.concat([TABLE, TABLE[["loss"]]], axis=1)
    assert read_runs(same)[0]["loss"].tolist() == TABLE["loss"].tolist()


def test_flops_of_a_budget_column_are_used():
    """A header of nanochat's: N with embeddings, so that 6 N D would not be C."""
    frame = TABLE.set_axis(["num_params", "tokens", "flops_budget", "loss"], axis=1)
    found = fit(frame.assign(num_params=frame["num_params"] + 3e7), num_draws=100)
    assert found.largest_budget == 1e20
    assert not any(check.code == "assumed" for check in found.checks)


@pytest.mark.parametrize("held_out", ["best_val_loss", "holdout_loss", "final_val_ce", "dev/loss"])
def test_a_held_out_loss_of_any_name_is_taken_before_loss(held_out):
    frame = pd.DataFrame(
        {"N": [1e6, 2e6], "D": [1e9, 2e9], "loss": [3.0, 2.0], held_out: [4.0, 3.5]}
    )
    found = recognise(frame)
    assert found.frame["loss"].tolist() == [4.0, 3.5]
    assert f"loss was read from '{held_out}'; left out: 'loss'" in found.checks[0].message
