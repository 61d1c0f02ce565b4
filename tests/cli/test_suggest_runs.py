"""`flops-fit suggest`: the table, the file and the JSON."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from tables import isoflop_table

from flops_fit.cli import main


def call(*words):
    return CliRunner().invoke(main, ["suggest", *map(str, words)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "runs.csv"
    isoflop_table().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def candidates(runs):
    path = runs.with_name("possible.csv")
    rows = [{"N": N, "C": C} for C in (1e18, 1e20) for N in (2e7, 5e7, 7e9, 2e10)]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_it_prints_a_table_and_what_the_runs_will_tell(runs):
    done = call(runs, "--target", 1e21, "-n", 3)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == "C, FLOPs N, parameters D, tokens gain why".split()
    assert len(lines) == 6
    assert lines[-1].startswith("3 runs of ")
    assert "narrow the interval of N_opt at 1e+21 FLOPs by about" in lines[-1]


def test_the_file_holds_the_runs_and_the_rows_of_the_candidates(runs, candidates, tmp_path):
    out = tmp_path / "next.csv"
    done = call(
        runs, "--target", 1e21, "--candidates", candidates, "--aim", "loss", "--out", out, "--json"
    )
    assert done.exit_code == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["target"], shown["aim"]) == (1e21, "loss")
    written = pd.read_csv(out)
    assert len(written) == len(shown["runs"]) == 5
    given = pd.read_csv(candidates).loc[written["row"]].reset_index(drop=True)
    pd.testing.assert_series_equal(written["num_params"], given["N"], check_names=False)
    assert written["why"].str.contains("the loss|the law").all()


def test_what_was_suggested_can_be_added_as_runs_that_wait(runs, tmp_path):
    out = tmp_path / "next.csv"
    assert call(runs, "--target", 1e21, "-o", out).exit_code == 0
    first = pd.read_csv(out)
    waiting = first.rename(columns={"num_params": "N", "num_tokens": "D", "flops": "C"})
    waiting = waiting[["N", "D", "C"]].assign(state="queued")
    done = pd.read_csv(runs).assign(state="finished")
    more = tmp_path / "more.csv"
    pd.concat([done, waiting]).to_csv(more, index=False)
    assert call(more, "--target", 1e21, "-o", out).exit_code == 0
    assert pd.concat([first, pd.read_csv(out)]).duplicated(["num_params", "num_tokens"]).sum() == 0


@pytest.mark.parametrize(
    ("words", "problem", "code"),
    [
        (["--target", "nan", "-n", 0], "2 problems:\n  - --target: expected a number of FLOPs", 2),
        (["--target", 1e5], "--target: expected at least 1e+18 FLOPs", 2),
        (["--target", 1e21, "--max-budget", 1], "--max-budget: expected at least", 2),
        (["--target", 1e21, "--candidates", "no.csv"], "candidates: no such file: no.csv", 2),
        (["--target", 1e21, "--out", "no/such/next.csv"], "--out: no such folder", 2),
        (["--target", 1e21, "--aim", "N"], "Invalid value for '--aim'", 2),
        ([], "Missing option '--target'", 2),
    ],
)
def test_it_says_what_it_needs(runs, words, problem, code):
    done = call(runs, *words)
    assert done.exit_code == code
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_too_few_runs_end_in_1(tmp_path):
    isoflop_table().iloc[:5].to_csv(tmp_path / "few.csv", index=False)
    done = call(tmp_path / "few.csv", "--target", 1e21)
    assert done.exit_code == 1
    assert "Train 4 sizes at each of three budgets first" in done.stderr
